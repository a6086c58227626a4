package profiler

import (
	"bytes"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/internal/testprog"
)

// TestOldProcessWithANewProgram: what executes a program has not started its runtime yet, however old it is; its layout is looked
// at again then, and not given up.
func TestOldProcessWithANewProgram(t *testing.T) {
	runtime.LockOSThread() // which traces: the child stops at its exec, before it has run an instruction of its program
	defer runtime.UnlockOSThread()
	cmd := exec.Command(testprog.Build(t, "labels", testprog.Options{}))
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	time.Sleep(time.Second + 100*time.Millisecond)
	p, err := New(Config{Source: bpf.NewReplay(&bytes.Buffer{})})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fresh time.Time
		young bool
	}{{time.Now(), true}, {time.Time{}, false}} {
		target, err := p.prepare(cmd.Process.Pid, c.fresh)
		if err != nil {
			t.Fatal(err)
		}
		if labels := target.layout.GLabels != 0; target.unverified != c.young || labels != c.young {
			t.Errorf("executed %v: to be looked at again: %v, labels: %v", c.fresh, target.unverified, labels)
		}
		if target.unsettled() != c.young {
			t.Errorf("executed %v: something is to be looked up soon: %v", c.fresh, !c.young)
		}
		if err := target.close(); err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
