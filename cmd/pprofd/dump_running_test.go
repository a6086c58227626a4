package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestDumpRunning: where goroutines run is sampled, and said to be of a later moment.
func TestDumpRunning(t *testing.T) {
	needs.BPF(t)
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			p := testprog.Start(t, testprog.Build(t, "crash", testprog.Options{Go: version}), "wait")
			out, errOut := dumped(t, "-p", fmt.Sprint(p.PID), "--json", "--running", "20s")
			sampled := 0
			for _, g := range objects(t, out) {
				if g.State != "running" {
					continue
				}
				n := len(g.Stack)
				if n < 2 || g.Stack[n-1].Func != g.Start || g.Stack[n-2].Func != "main.known" || g.Later <= 0 || !g.Complete {
					t.Errorf("%+v", g)
				}
				sampled++
			}
			if sampled == 0 || errOut != "" {
				t.Errorf("%d goroutines ran: %q", sampled, errOut)
			}
		})
	}
}

// TestDumpNotRunning: who does not ask where goroutines run is told of their first functions. These four keep a thread each, so that they
// run, for the runtime, whenever they are read, but for a moment after each of their 10 ms.
func TestDumpNotRunning(t *testing.T) {
	needs.Root(t)
	p := testprog.Start(t, testprog.Build(t, "crash", testprog.Options{}), "wait")
	out, errOut := dumped(t, "-p", fmt.Sprint(p.PID), "--running", "0")
	one := regexp.MustCompile(`(?m)^1 goroutine: running
\tgoid \d+
\.\.\.stack not known; its first function is main\.(spin|leaf|now|allocate)\.\.\.$`)
	if !one.MatchString(out) || errOut != "" {
		t.Errorf("nothing runs without a stack in\n%.3000s\n%s", out, errOut)
	}
}

// TestDumpWithoutRights: who may read a process and not use BPF gets all but where goroutines run, and is told so; who may not read it is
// told what to do, by Yama, too.
func TestDumpWithoutRights(t *testing.T) {
	needs.Root(t)
	const nobody = 65534
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copies := map[string]string{"pprofd": exe, "crash": testprog.Build(t, "crash", testprog.Options{})}
	for name, from := range copies {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid uint32, name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), filepath.Join(dir, name), args...)
		c.Dir, c.Env = dir, []string{asPprofd + "=1"}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return c
	}
	dumpAs := func(uid uint32, pid int) (int, string) {
		out, err := as(uid, "pprofd", "dump", "-p", fmt.Sprint(pid)).CombinedOutput()
		return exitCode(t, err), string(out)
	}
	prog := as(nobody, "crash", "wait")
	ready, err := prog.StdoutPipe()
	if err == nil {
		err = prog.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = prog.Process.Kill()
		_ = prog.Wait()
	}()
	if _, err := fmt.Fscanln(ready); err != nil && !strings.Contains(err.Error(), "expected newline") {
		t.Fatal(err)
	}
	code, out := dumpAs(nobody+1, prog.Process.Pid)
	if code != exitFailure || !strings.Contains(out, "CAP_SYS_PTRACE") {
		t.Errorf("another user: exit code %d, %s", code, out)
	}
	const scope = "/proc/sys/kernel/yama/ptrace_scope"
	was, err := os.ReadFile(scope)
	if err != nil {
		code, out = dumpAs(nobody, prog.Process.Pid)
		allowed(t, code, out)
		return
	}
	defer func() {
		if err := os.WriteFile(scope, was, 0); err != nil {
			t.Error(err)
		}
	}()
	for value, says := range map[string]string{"0": "", "1": "sysctl kernel.yama.ptrace_scope=0", "2": "kernel.yama.ptrace_scope is 2"} {
		if err := os.WriteFile(scope, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		code, out := dumpAs(nobody, prog.Process.Pid)
		switch {
		case says == "":
			allowed(t, code, out)
		case code != exitFailure || !strings.Contains(out, says):
			t.Errorf("ptrace_scope %s: exit code %d, %s", value, code, out)
		}
		if code, out := dumpAs(0, prog.Process.Pid); code != 0 {
			t.Errorf("ptrace_scope %s, root: exit code %d, %s", value, code, out)
		}
	}
}

// allowed: who may read memory, and no more, sees what waits, and that others run.
func allowed(t *testing.T, code int, out string) {
	t.Helper()
	if code != 0 || !strings.Contains(out, "main.run.func1\n") || !strings.Contains(out, "...stack not known; its first function is main.spin...") ||
		!strings.Contains(out, "goroutines that run are not known") || !strings.Contains(out, "CAP_BPF") {
		t.Errorf("exit code %d, %s", code, out)
	}
}
