package bpf

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
)

// crowd makes TestExitsChild a program whose threads end all at once.
const crowd = "crowd"

// TestExitsChild is the program that TestExitIsToldOnce watches.
func TestExitsChild(t *testing.T) {
	if os.Getenv(childEnv) != crowd {
		return // on its own
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		t.Fatal("something to read")
	}
	var all sync.WaitGroup
	for range 16 {
		all.Add(1)
		go func() {
			runtime.LockOSThread()
			all.Done()
			select {}
		}()
	}
	all.Wait()
	os.Exit(0)
}

// TestExitIsToldOnce: the threads of a process end at once, and more than one may find that it is the last.
func TestExitIsToldOnce(t *testing.T) {
	p := load(t, Options{Frequency: 1, Event: EventCPUClock})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	exits := map[uint32]int{}
	for range 100 {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestExitsChild$")
		cmd.Env = append(os.Environ(), childEnv+"="+crowd)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := uint32(cmd.Process.Pid)
		if err := errors.Join(p.SetTarget(pid, &Target{}), in.Close(), cmd.Wait()); err != nil {
			t.Fatal(err)
		}
		exits[pid] = 0
	}
	drain(t, p, func(r *Record) {
		if r.Type == TypeExit {
			exits[r.PID]++
		}
	})
	for pid, n := range exits {
		if n != 1 {
			t.Errorf("process %d has exited %d times", pid, n)
		}
	}
}
