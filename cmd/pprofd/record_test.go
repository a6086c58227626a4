package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// The tests of this file run pprofd as a process of its own, against real targets and the real kernel.

// command is pprofd with the arguments, in a directory of its own.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	needs.BPF(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), asPprofd+"=1", "SUDO_UID=", "SUDO_GID=")
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// exitCode is what a shell would have in $?.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

func spin(t *testing.T) *testprog.Proc {
	t.Helper()
	return testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=1", "-seconds=600")
}

// readProfile parses a profile file with pprof's own package, which also checks it.
func readProfile(t *testing.T, path string) *profile.Profile {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return p
}

// holds says how many samples have the function in their stack.
func holds(p *profile.Profile, function string) (n int64) {
	for _, s := range p.Sample {
		if slices.ContainsFunc(s.Location, func(l *profile.Location) bool {
			return slices.ContainsFunc(l.Line, func(line profile.Line) bool { return line.Function.Name == function })
		}) {
			n += s.Value[0]
		}
	}
	return n
}

// wantSpin checks that a profile is of spin: its four functions take all its time between them.
func wantSpin(t *testing.T, paths ...string) {
	t.Helper()
	n, all := int64(0), int64(0)
	for _, path := range paths {
		p := readProfile(t, path)
		n += holds(p, "main.alpha") + holds(p, "main.beta") + holds(p, "main.gamma") + holds(p, "main.delta")
		for _, s := range p.Sample {
			all += s.Value[0]
		}
	}
	if n < 5 || n < all*8/10 {
		t.Errorf("%v: %d of %d samples are in spin's functions", paths, n, all)
	}
}

// often is for tests that cannot wait: a busy machine gives a target little of a second.
const often = "-F=997"

func TestRecordProcess(t *testing.T) {
	p := spin(t)
	cmd, out, errOut := command(t, "record", "-p", fmt.Sprint(p.PID), "-d", "1s", often)
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	if took := time.Since(begin); took < time.Second || took > 10*time.Second {
		t.Errorf("1 s took %v", took)
	}
	wantSpin(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
	for _, want := range []string{"main.alpha", "cpu.pb.gz: go tool pprof cpu.pb.gz", " 0 lost"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if errOut.Len() > 0 {
		t.Errorf("standard error is no terminal, and all went well: %q", errOut)
	}
	select {
	case <-p.Exited():
		t.Error("the target died")
	default:
	}
}

func TestRecordQuietly(t *testing.T) {
	cmd, out, errOut := command(t, "record", "-q", "-p", fmt.Sprint(spin(t).PID), "-d", "500ms", often, "-o", "x.pb.gz")
	if err := cmd.Run(); err != nil || out.Len()+errOut.Len() > 0 {
		t.Errorf("%v, %q, %q", err, out, errOut)
	}
	wantSpin(t, filepath.Join(cmd.Dir, "x.pb.gz"))
}

func TestRecordToStandardOutputHoldsNothingElse(t *testing.T) {
	goTool := needs.Tool(t, "go")
	cmd, out, errOut := command(t, "record", "-p", fmt.Sprint(spin(t).PID), "-d", "500ms", often, "-o", "-")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	file := filepath.Join(cmd.Dir, "p")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := exec.Command(goTool, "tool", "pprof", "-raw", file).Output()
	if err != nil || !bytes.Contains(raw, []byte("main.alpha")) || !bytes.Contains(raw, []byte("cpu/nanoseconds")) {
		t.Errorf("%v\n%s", err, raw)
	}
	if !strings.Contains(errOut.String(), "main.alpha") {
		t.Errorf("no table on standard error: %q", errOut)
	}
}

func TestRecordFolded(t *testing.T) {
	cmd, out, errOut := command(t, "record", "-q", "-p", fmt.Sprint(spin(t).PID), "-d", "500ms", often, "--format", "folded", "-o", "-")
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), ";main.alpha ") {
		t.Errorf("%v, %q\n%s", err, errOut, out)
	}
}

func TestRecordSeveralProcesses(t *testing.T) {
	a, b := spin(t), spin(t)
	pids := fmt.Sprintf("%d,%d", a.PID, b.PID)
	cmd, _, errOut := command(t, "record", "-p", pids, "-d", "500ms", often, "-o", "out")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	for _, p := range []*testprog.Proc{a, b} {
		wantSpin(t, filepath.Join(cmd.Dir, "out", fmt.Sprintf("spin-%d.cpu.pb.gz", p.PID)))
	}
	cmd, _, errOut = command(t, "record", "-p", pids, "-d", "500ms", often, "--merge", "-o", "all.pb.gz")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	wantSpin(t, filepath.Join(cmd.Dir, "all.pb.gz"))
}

func TestRecordForPGO(t *testing.T) {
	cmd, out, errOut := command(t, "record", "-p", fmt.Sprint(spin(t).PID), "-d", "500ms", often, "--pgo")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	wantSpin(t, filepath.Join(cmd.Dir, "default.pgo"))
	if !strings.Contains(out.String(), "go build -pgo=default.pgo") {
		t.Errorf("%s", out)
	}
}

// until waits for something that must come true, on a machine that may be busy.
func until(t *testing.T, what string, came func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !came(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come true", what)
		}
	}
}

// hasEvents says whether the process holds perf events open.
func hasEvents(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, _ := os.ReadDir(dir)
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
		target, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		return target == "anon_inode:[perf_event]"
	})
}

// hasOpen says whether a process holds a file open: the program of what it samples or reads.
func hasOpen(pid int, path string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, _ := os.ReadDir(dir)
	return slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
		target, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		return target == path
	})
}

// awaitReading waits until a command has opened the program that it is to sample or read, and somewhat longer.
func awaitReading(t *testing.T, cmd *exec.Cmd, program string) {
	t.Helper()
	until(t, "the program is opened", func() bool { return hasOpen(cmd.Process.Pid, program) })
	time.Sleep(300 * time.Millisecond)
}

func sendSignal(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func TestCtrlCEndsEarlyAndWrites(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		cmd, _, errOut := command(t, "record", "-p", fmt.Sprint(spin(t).PID), "-d", "1m", often)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "pprofd opens perf events", func() bool { return hasEvents(cmd.Process.Pid) })
		time.Sleep(700 * time.Millisecond)
		begin := time.Now()
		sendSignal(t, cmd, sig)
		if err := cmd.Wait(); err != nil || time.Since(begin) > 5*time.Second {
			t.Errorf("%v: %v after %v, %s", sig, err, time.Since(begin), errOut)
		}
		wantSpin(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
	}
}

// However early the signal comes, nothing but a whole profile is left.
func TestCtrlCWhileStartingLeavesNothing(t *testing.T) {
	p := spin(t)
	for _, wait := range []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond} {
		cmd, _, errOut := command(t, "record", "-p", fmt.Sprint(p.PID), "-d", "1m")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(wait)
		sendSignal(t, cmd, syscall.SIGINT)
		_ = cmd.Wait() // with what code depends on how early the signal came
		left, err := os.ReadDir(cmd.Dir)
		if err != nil || len(left) > 1 || len(left) == 1 && left[0].Name() != "cpu.pb.gz" {
			t.Errorf("after %v: left %v, %v; says %q", wait, left, err, errOut)
		}
	}
}

func TestTargetThatExitsMidwayIsWritten(t *testing.T) {
	p := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads=1", "-seconds=600", "-cpu=1500ms")
	cmd, _, errOut := command(t, "record", "-p", fmt.Sprint(p.PID), "-d", "10m", often)
	begin := time.Now()
	if err := cmd.Run(); err != nil || time.Since(begin) > 5*time.Minute {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	wantSpin(t, filepath.Join(cmd.Dir, "cpu.pb.gz"))
	if !strings.Contains(errOut.String(), "exited") || !strings.Contains(errOut.String(), fmt.Sprint(p.PID)) {
		t.Errorf("no note of the exit: %q", errOut)
	}
}

func TestRecordProgramFromExecToExit(t *testing.T) {
	path := testprog.Build(t, "spin", testprog.Options{})
	cmd, out, errOut := command(t, "record", often, "-o", "x.pb.gz", "--", path, "-threads=1", "-seconds=1")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	wantSpin(t, filepath.Join(cmd.Dir, "x.pb.gz"))
	if lines := strings.Fields(out.String()); len(lines) == 0 || lines[0] != "ready" || strings.Contains(out.String(), "go tool pprof") {
		t.Errorf("standard output is not the program's alone:\n%s", out)
	}
	if !strings.Contains(errOut.String(), "go tool pprof x.pb.gz") {
		t.Errorf("no summary on standard error: %s", errOut)
	}
}

// A shell that executes the program in its place: the exit codes and signals are those of the process.
func TestRecordPassesExitCodeAndSignals(t *testing.T) {
	sh := needs.Tool(t, "sh")
	cmd, _, _ := command(t, "record", "-q", "--", sh, "-c", "exit 3")
	if code := exitCode(t, cmd.Run()); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	cmd, _, _ = command(t, "record", "-q", "--", sh, "-c", "kill -KILL $$")
	if code := exitCode(t, cmd.Run()); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
	cmd, out, _ := command(t, "record", "-q", "--", sh, "-c", `trap "echo usr1" USR1; trap "echo term; exit 7" TERM; echo ready > ready; while :; do sleep 0.05; done`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the program runs", func() bool { return exists(filepath.Join(cmd.Dir, "ready")) })
	sendSignal(t, cmd, syscall.SIGUSR1)
	time.Sleep(300 * time.Millisecond)
	sendSignal(t, cmd, syscall.SIGTERM)
	if code := exitCode(t, cmd.Wait()); code != 7 || out.String() != "usr1\nterm\n" {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestDurationEndsTheRecordingNotTheProgram(t *testing.T) {
	path := testprog.Build(t, "spin", testprog.Options{})
	cmd, _, errOut := command(t, "record", "-q", "-d", "1s", often, "--", path, "-threads=1", "-seconds=600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cmd.Dir, "cpu.pb.gz")
	until(t, "the profile is written", func() bool { return exists(file) })
	sendSignal(t, cmd, syscall.SIGTERM) // which is handed on to the program, if it runs
	if code := exitCode(t, cmd.Wait()); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	if n := holds(readProfile(t, file), "main.alpha"); n < 5 || n > 997 {
		t.Errorf("%d samples in main.alpha within 1 s at 997 Hz", n)
	}
}

func TestProgramThatCannotStartLeavesNoProfile(t *testing.T) {
	for path, want := range map[string]int{"no-such-program-anywhere": exitNotFound, "/etc/passwd": exitNotExecutable} {
		cmd, _, errOut := command(t, "record", "--", path)
		if code := exitCode(t, cmd.Run()); code != want || strings.Count(errOut.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, want %d; %q", path, code, want, errOut)
		}
		if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", path, left, err)
		}
	}
}

func TestFilesBelongToTheUserWhoCalledSudo(t *testing.T) {
	needs.Root(t)
	cmd, _, errOut := command(t, "record", "-q", "-p", fmt.Sprint(spin(t).PID), "-d", "300ms")
	cmd.Env = append(cmd.Env, "SUDO_UID=4711", "SUDO_GID=4712")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	info, err := os.Stat(filepath.Join(cmd.Dir, "cpu.pb.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 4711 || st.Gid != 4712 {
		t.Errorf("%+v", info.Sys())
	}
}

func TestOutputIsRefusedBeforeSampling(t *testing.T) {
	a, b := spin(t), spin(t)
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"missing directory":       {[]string{"-p", fmt.Sprint(a.PID), "-o", "missing/x.pb.gz"}, exitFailure},
		"several onto a file":     {[]string{"-p", fmt.Sprint(a.PID), "-p", fmt.Sprint(b.PID), "-o", "/etc/passwd"}, exitUsage},
		"several onto one stream": {[]string{"-p", fmt.Sprint(a.PID), "-p", fmt.Sprint(b.PID), "-o", "-"}, exitUsage},
	} {
		cmd, out, errOut := command(t, append([]string{"record", "-d", "1m"}, c.args...)...)
		begin := time.Now()
		code := exitCode(t, cmd.Run())
		if code != c.code || out.Len() > 0 || errOut.Len() == 0 || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: exit code %d after %v, says %q", name, code, time.Since(begin), errOut)
		}
	}
}

func TestReaderThatGoesAwayIsNoFailure(t *testing.T) {
	cmd, _, errOut := command(t, "record", "-p", fmt.Sprint(spin(t).PID), "-d", "300ms")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := errors.Join(cmd.Start(), w.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err, errOut)
	}
	cmd, _, errOut = command(t, "record", "-q", "-p", fmt.Sprint(spin(t).PID), "-d", "300ms", "-o", "-")
	if r, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := errors.Join(cmd.Start(), w.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != exitFailure || !strings.Contains(errOut.String(), "broken pipe") {
		t.Errorf("a profile that nobody read: exit code %d, %q", code, errOut)
	}
}

// A user without rights is told which, and what to do.
func TestRecordWithoutRights(t *testing.T) {
	needs.Root(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // closed to other users, as is its parent
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777), os.WriteFile(filepath.Join(dir, "pprofd"), data, 0o755)); err != nil {
		t.Fatal(err)
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	run := func(args ...string) (int, string) {
		cmd, _, errOut := command(t, args...)
		cmd.Path, cmd.Dir, cmd.SysProcAttr = filepath.Join(dir, "pprofd"), dir, nobody
		cmd.Stdout = io.Discard
		return exitCode(t, cmd.Run()), errOut.String()
	}
	if code, says := run("record", "-p", fmt.Sprint(spin(t).PID)); code != exitFailure || !strings.Contains(says, "CAP_SYS_PTRACE") {
		t.Errorf("another user's process: exit code %d, %q", code, says)
	}
	if code, says := run("record", "--", "true"); code != exitFailure || !strings.Contains(says, "cap_perfmon") {
		t.Errorf("own program: exit code %d, %q", code, says)
	}
	if code, says := run("record", "-t", "wall", "--", "true"); code != exitFailure || !strings.Contains(says, "\n  without that: --state runnable,syscall,waiting, ") {
		t.Errorf("own program, wall: exit code %d, %q", code, says)
	}
	if code, says := run("record", "-t", "wall", "--state", "runnable,syscall,waiting", "-d", "100ms", "--", "/bin/sleep", "1"); strings.Contains(says, "permission") {
		t.Errorf("own program, wall without what runs: exit code %d, %q", code, says)
	}
	if code, _ := run("doctor"); code != exitFailure {
		t.Errorf("doctor: exit code %d", code)
	}
	if code, says := run("ps"); code != 0 || !strings.Contains(says, "could not be read") {
		t.Errorf("ps: exit code %d, %q", code, says)
	}
	if s, err := file.OpenStore(file.StoreOptions{Dir: filepath.Join(dir, "store")}); err != nil || s.Close() != nil {
		t.Fatal(err)
	}
	if code, says := run("ls", filepath.Join(dir, "store")); code != exitFailure || !strings.Contains(says, "permission denied: profiles are the agent's user's alone; try sudo") {
		t.Errorf("ls: exit code %d, %q", code, says)
	}
}
