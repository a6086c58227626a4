package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// start spawns sh -c script and releases it.
func start(t *testing.T, as *identity, script string) *child {
	t.Helper()
	c, err := spawn(needs.Tool(t, "sh"), as)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.abandon)
	if err := c.release([]string{"sh", "-c", script}, as); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *child) await(t *testing.T) int {
	t.Helper()
	select {
	case <-c.exited:
	case <-time.After(10 * time.Second):
		c.cmd.Process.Kill()
		t.Fatal("the program does not end")
	}
	return c.code()
}

func TestExitCodeIsTheProgramsAsShellsHaveIt(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -TERM $$": 143, "kill -KILL $$": 137} {
		if got := start(t, nil, script).await(t); got != want {
			t.Errorf("%s: %d, want %d", script, got, want)
		}
	}
}

func TestProgramKeepsThePIDAndWaitsForItsRelease(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c, err := spawn(needs.Tool(t, "sh"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.abandon()
	time.Sleep(100 * time.Millisecond)
	if exists(out) {
		t.Fatal("the program ran before its release")
	}
	if err := c.release([]string{"sh", "-c", "echo $$ > " + out}, nil); err != nil {
		t.Fatal(err)
	}
	c.await(t)
	got, err := os.ReadFile(out)
	if err != nil || strings.TrimSpace(string(got)) != fmt.Sprint(c.pid()) {
		t.Errorf("the program ran as %q, the profiler was told %d, %v", got, c.pid(), err)
	}
}

func TestAbandonedChildLeaves(t *testing.T) {
	c, err := spawn(needs.Tool(t, "sh"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.abandon()
	if code := c.await(t); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
}

func TestProgramThatCannotBeExecutedIsTold(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("\x7fELF no more"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{broken: exitNotExecutable, filepath.Join(dir, "gone"): exitNotFound} {
		c, err := spawn(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = c.release([]string{path}, nil)
		var exit exitError
		if !errors.As(err, &exit) || exit.code != want || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want exit code %d", path, err, want)
		}
		c.abandon()
	}
	for name, want := range map[string]int{"no-such-program-anywhere": exitNotFound, "/etc/passwd": exitNotExecutable} {
		_, err := findProgram(name)
		var exit exitError
		if !errors.As(err, &exit) || exit.code != want {
			t.Errorf("%s: %v, want exit code %d", name, err, want)
		}
	}
}

// The program must find what it would find without pprofd: no further descriptors, no signals blocked or ignored, the
// limit of open files that was there before Go raised it. A shell without pprofd tells what that is.
func TestProgramInheritsNothingOfOurs(t *testing.T) {
	const look = `ls /proc/$$/fd; ulimit -n; grep -E '^Sig(Blk|Ign)|^CapInh|^CapAmb' /proc/self/status; ps -o pgid= -o sid= -p $$; umask`
	dir := t.TempDir()
	for _, tool := range []string{"ps", "grep"} {
		needs.Tool(t, tool)
	}
	want, err := exec.Command("sh", "-c", "exec >"+filepath.Join(dir, "plain")+" 2>&1; "+look).CombinedOutput()
	if err != nil {
		t.Fatal(err, want)
	}
	start(t, nil, "exec >"+filepath.Join(dir, "ours")+" 2>&1 </dev/null; "+look).await(t)
	plain, err1 := os.ReadFile(filepath.Join(dir, "plain"))
	ours, err2 := os.ReadFile(filepath.Join(dir, "ours"))
	if err := errors.Join(err1, err2); err != nil || string(plain) != string(ours) {
		t.Errorf("a program has\n%s\nbehind -- it has\n%s\n%v", plain, ours, err)
	}
}

func TestSignalsReachTheProgram(t *testing.T) {
	c := start(t, nil, `trap "exit 42" USR1; while :; do sleep 0.05; done`)
	time.Sleep(200 * time.Millisecond)
	s := &signals{program: true, child: c}
	if r := s.react(syscall.SIGUSR1); r != goOn {
		t.Errorf("reaction %d", r)
	}
	if code := c.await(t); code != 42 {
		t.Errorf("exit code %d", code)
	}
}

func TestWhatSignalsAskFor(t *testing.T) {
	in, term, hup := syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP
	for name, c := range map[string]struct {
		program bool
		got     []syscall.Signal
		want    []reaction
	}{
		"first ends, second aborts":                   {false, []syscall.Signal{in, in}, []reaction{stop, abort}},
		"of different kinds":                          {false, []syscall.Signal{term, hup}, []reaction{stop, abort}},
		"with a program the first is the program's":   {true, []syscall.Signal{term, term, term}, []reaction{goOn, stop, abort}},
		"a program may take SIGHUP as often as it is": {true, []syscall.Signal{hup, hup, hup, term}, []reaction{goOn, goOn, goOn, goOn}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &signals{program: c.program}
			if c.program {
				s.child = start(t, nil, `trap "" INT TERM HUP; sleep 1`)
				time.Sleep(100 * time.Millisecond)
			}
			for i, sig := range c.got {
				if r := s.react(sig); r != c.want[i] {
					t.Errorf("signal %d, %v: reaction %d, want %d", i, sig, r, c.want[i])
				}
			}
		})
	}
}

func TestSudoUser(t *testing.T) {
	env := map[string]string{"SUDO_UID": "65534", "SUDO_GID": "65534"}
	getenv := func(k string) string { return env[k] }
	id, err := sudoUser(0, getenv)
	if err != nil || id == nil || id.UID != 65534 || id.GID != 65534 || !slices.Contains(id.Groups, 65534) {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err := sudoUser(1000, getenv); id != nil || err != nil {
		t.Errorf("without root: %+v, %v", id, err)
	}
	for _, uid := range []string{"", "0"} {
		env["SUDO_UID"] = uid
		if id, err := sudoUser(0, getenv); id != nil || err != nil {
			t.Errorf("SUDO_UID=%q: %+v, %v", uid, id, err)
		}
	}
	var usage usageError
	for _, uid := range []string{"x", "-1", "4294967296"} {
		env["SUDO_UID"] = uid
		if _, err := sudoUser(0, getenv); !errors.As(err, &usage) {
			t.Errorf("SUDO_UID=%q: %v", uid, err)
		}
	}
}

func TestProgramRunsAsTheUserWhoCalledSudo(t *testing.T) {
	needs.Root(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.WriteFile(out, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out, 0o666); err != nil {
		t.Fatal(err)
	}
	for d := dir; strings.HasPrefix(d, os.TempDir()) && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SUDO_COMMAND", "secret")
	as := &identity{UID: 4711, GID: 4712, Groups: []int{4712, 4713}, name: "someone", home: "/home/someone"}
	start(t, as, `(id -u; id -g; id -G; grep -E 'CapEff|CapPrm' /proc/$$/status; echo $HOME $USER $LOGNAME "$SUDO_COMMAND"; test -n "$PATH" && echo path) > `+out).await(t)
	got, err := os.ReadFile(out)
	want := "4711\n4712\n4712 4713\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n/home/someone someone someone \npath\n"
	if err != nil || string(got) != want {
		t.Errorf("got\n%s\nwant\n%s\n%v", got, want, err)
	}
}
