package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// meanwhile is an output that does something once the first of it is there.
type meanwhile struct {
	b  bytes.Buffer
	do func()
}

func (m *meanwhile) Write(b []byte) (int, error) {
	if m.do != nil {
		m.do()
		m.do = nil
	}
	return m.b.Write(b)
}

// dumpedMeanwhile dumps a process with many goroutines, and does something once the first was read.
func dumpedMeanwhile(t *testing.T, do func(p *testprog.Proc, stop func()), args ...string) (code int, stdout, stderr string) {
	t.Helper()
	needs.Root(t)
	p := testprog.Start(t, testprog.Build(t, "crowd", testprog.Options{}), "20000")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, errOut := meanwhile{do: func() { do(p, stop) }}, bytes.Buffer{}
	code = run(ctx, &out, &errOut, append([]string{"dump", "-p", fmt.Sprint(p.PID), "--running", "0"}, args...))
	return code, out.b.String(), errOut.String()
}

// TestDumpOfEndingProcess: what was read until a process ended is shown, and that it is not all is said.
func TestDumpOfEndingProcess(t *testing.T) {
	code, out, errOut := dumpedMeanwhile(t, func(p *testprog.Proc, _ func()) { p.Stop() }, "--json")
	if n := len(objects(t, out)); code != exitFailure || n < 100 || n > 10000 || !strings.Contains(errOut, "the process ended") ||
		!strings.Contains(errOut, "only a part") {
		t.Errorf("exit code %d, %d goroutines, %q", code, n, errOut)
	}
	code, out, errOut = dumpedMeanwhile(t, func(p *testprog.Proc, _ func()) { p.Stop() }, "--each")
	if !strings.Contains(out, ": incomplete, ") || code != exitFailure || strings.Count(errOut, "\n") != 1 {
		t.Errorf("exit code %d, %.300q, %q", code, out, errOut)
	}
}

// TestDumpInterrupted: so it is where somebody has seen enough.
func TestDumpInterrupted(t *testing.T) {
	code, out, errOut := dumpedMeanwhile(t, func(_ *testprog.Proc, stop func()) { stop() }, "--json")
	if n := len(objects(t, out)); code != exitSignal+int(syscall.SIGINT) || n < 100 || n > 10000 || !strings.Contains(errOut, "interrupted") {
		t.Errorf("exit code %d, %d goroutines, %q", code, n, errOut)
	}
}

// TestDumpOfReusedPID: nothing of another process that has got the PID meanwhile is shown.
func TestDumpOfReusedPID(t *testing.T) {
	other := testprog.Build(t, "waits", testprog.Options{})
	var c *exec.Cmd
	code, out, errOut := dumpedMeanwhile(t, func(p *testprog.Proc, _ func()) {
		p.Stop()
		c = startAs(t, p.PID, other, filepath.Join(t.TempDir(), "traces"))
	}, "--json")
	if c == nil {
		t.Skip("this kernel lets nobody choose the next PID (ns_last_pid), or others start too many")
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	if code != exitFailure || !strings.Contains(errOut, "the process ended") || len(objects(t, out)) < 100 || strings.Contains(out, "/waits/") {
		t.Errorf("exit code %d, %q; of the other process: %v", code, errOut, strings.Contains(out, "/waits/"))
	}
}

// startAs starts a program as process pid; nil: that cannot be had.
func startAs(t *testing.T, pid int, path string, args ...string) *exec.Cmd {
	t.Helper()
	for range 1000 {
		if os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid-1), 0) != nil {
			return nil
		}
		c := exec.Command(path, args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if c.Process.Pid == pid {
			return c
		}
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	return nil
}

// renamed is a copy of a program whose version is another, of a Go that does not exist yet.
func renamed(t *testing.T, path, version string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := "go1.99" + strings.Repeat(".", len(version)-len("go1.99")-1) + "9"
	if n := bytes.Count(data, []byte(version)); n == 0 {
		t.Fatalf("%s does not say %s", path, version)
	}
	to := filepath.Join(t.TempDir(), "newer")
	if err := os.WriteFile(to, bytes.ReplaceAll(data, []byte(version), []byte(strings.Replace(newer, "..", ".0", 1))), 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestDumpOfNewerGo: of a Go that is newer than what pprofd knows it says so, and shows what turns out to be as it was; else what works.
func TestDumpOfNewerGo(t *testing.T) {
	needs.Root(t)
	for version, works := range map[string]bool{"1.27.4": true, "1.20.14": false} {
		t.Run(version, func(t *testing.T) {
			path := renamed(t, testprog.Build(t, "waits", testprog.Options{Go: version, Strip: true}), "go"+version)
			pid := fmt.Sprint(testprog.Start(t, path, filepath.Join(t.TempDir(), "traces")).PID)
			code, out, errOut := call(t, "dump", "-p", pid)
			switch {
			case !strings.Contains(errOut, "go1.99"):
				t.Errorf("the version is not told: %q", errOut)
			case works && (code != 0 || !strings.Contains(out, "main.receive\n") || !strings.Contains(errOut, "newer than")):
				t.Errorf("exit code %d, %q\n%.1000s", code, errOut, out)
			case !works && (code != exitFailure || out != "" || !strings.Contains(errOut, "what works all the same: pprofd record")):
				t.Errorf("exit code %d, %q\n%.1000s", code, errOut, out)
			}
		})
	}
}

// TestDumpOfHostileCount: a process that says that it has as many goroutines as can be is dumped in a bounded time, or until somebody has
// seen enough.
func TestDumpOfHostileCount(t *testing.T) {
	needs.Root(t)
	path := testprog.Build(t, "waits", testprog.Options{})
	p := testprog.Start(t, path, filepath.Join(t.TempDir(), "traces"))
	if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{1 << 28, 1 << 63} {
		poke(t, p.PID, symbol(t, path, "runtime.allglen"), n)
		code, out, errOut := call(t, "dump", "-p", fmt.Sprint(p.PID), "--running", "0", "--json")
		if code != exitFailure || !strings.Contains(errOut, "runtime.allgs") || len(out) > 10<<20 {
			t.Errorf("%d goroutines: exit code %d, %d bytes, %q", n, code, len(out), errOut)
		}
	}
}

// symbol is the address of a variable of a program that is not PIE.
func symbol(t *testing.T, path, name string) uint64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "nm", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		var addr uint64
		var kind, is string
		if n, _ := fmt.Sscanf(line, "%x %s %s", &addr, &kind, &is); n == 3 && is == name {
			return addr
		}
	}
	t.Fatalf("%s has no %s", path, name)
	return 0
}

// poke writes into a process's memory.
func poke(t *testing.T, pid int, addr, word uint64) {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, word), int64(addr)); err != nil {
		t.Fatal(err)
	}
}

// TestDumpOfBadCores: core files that are damaged, of another program or machine, or of no Go program.
func TestDumpOfBadCores(t *testing.T) {
	needs.Root(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "waits")
	data, err := os.ReadFile(testprog.Build(t, "waits", testprog.Options{}))
	if err == nil {
		err = os.WriteFile(path, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := testprog.Start(t, path, filepath.Join(dir, "traces"))
	core := testprog.GCore(t, p.PID)
	p.Stop()
	check := func(what, says string, args ...string) {
		t.Helper()
		code, out, errOut := call(t, append([]string{"dump", "--core"}, args...)...)
		if code != exitFailure || !strings.Contains(errOut, says) || out != "" {
			t.Errorf("%s: exit code %d, %q, want %q; %.300s", what, code, errOut, says, out)
		}
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	check("without its program", "--core-exe", core)
	check("with another program", "another file", core, "--core-exe", testprog.Build(t, "hello", testprog.Options{}))
	if code, out, errOut := call(t, "dump", "--core", core, "--core-exe", path+".moved"); code != 0 || !strings.Contains(out, "main.receive\n") {
		t.Errorf("with its program elsewhere: exit code %d, %q", code, errOut)
	}
	if err := os.Rename(path+".moved", path); err != nil {
		t.Fatal(err)
	}
	change(t, core, 18, 8, func(name string) { check("of another machine", "EM_MIPS", name) })
	change(t, core, 18, 183, func(name string) { check("of another machine than the program", "EM_AARCH64", name) })
	if shown := cutCores(t, core); shown > 0 {
		t.Error("gcore has its notes at the end, and they are not missed")
	}

	sleep := exec.Command("sleep", "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	other := testprog.GCore(t, sleep.Process.Pid)
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	check("of no Go program", "not a Go program", other)
}

// change sets a byte of a file while do looks at it.
func change(t *testing.T, path string, at int64, to byte, do func(string)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	was := make([]byte, 1)
	if _, err = f.ReadAt(was, at); err == nil {
		_, err = f.WriteAt([]byte{to}, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	do(path)
	if _, err := f.WriteAt(was, at); err != nil {
		t.Fatal(err)
	}
}

// TestDumpOfCutCore: the kernel's core files begin with what makes them understood.
func TestDumpOfCutCore(t *testing.T) {
	c := testprog.CrashWith(t, testprog.CrashOptions{}, testprog.Build(t, "crash", testprog.Options{}), "panic")
	if c == nil {
		t.Skip("this machine hands core files to a program, or keeps none")
	}
	code, out, errOut := call(t, "dump", "--core", c.Core)
	if code != 0 || errOut != "" || !strings.Contains(out, "\nended by SIGABRT, which it sent itself, in goroutine 1\n\n1 goroutine: running, the process ended here\n") ||
		!strings.Contains(out, "main.boom\n") {
		t.Errorf("exit code %d, %q\n%.1000s", code, errOut, out)
	}
	_, out, _ = call(t, "dump", "--core", c.Core, "--json")
	if all := objects(t, out); len(all) < 5 || !all[0].Killed || all[0].Goid != 1 || !all[0].Complete || all[1].Killed {
		t.Errorf("%+v", all)
	}
	if cutCores(t, c.Core) == 0 {
		t.Error("nothing is ever shown")
	}
}

// cutCores cuts a core file off more and more: what is left is shown, with a note, or it is said what is wrong.
func cutCores(t *testing.T, core string) (shown int) {
	t.Helper()
	st, err := os.Stat(core)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []int64{99, 95, 90, 75, 50, 25, 10, 5, 1, 0} {
		if err := os.Truncate(core, st.Size()*part/100); err != nil {
			t.Fatal(err)
		}
		code, out, errOut := call(t, "dump", "--core", core)
		switch {
		case !strings.Contains(errOut, "cut off"):
			t.Errorf("%d %%: exit code %d, %q", part, code, errOut)
		case code == 0 && strings.Contains(out, "\nmain."):
			shown++
		case code == 0:
			t.Errorf("%d %%: %.1000s", part, out)
		}
	}
	return shown
}
