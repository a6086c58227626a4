package profiler

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// adder is who makes processes its targets.
type adder interface{ Add(pid int) error }

// TestOpenRefuses: what cannot be profiled, and why, is the same for samples and for memory. That one of our limits is the
// reason is not hidden behind "not a Go program".
func TestOpenRefuses(t *testing.T) {
	spin := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-seconds", "60")
	heap := testprog.Start(t, testprog.Build(t, "heap", testprog.Options{}), "-quiet")
	sleep := exec.CommandContext(t.Context(), needs.Tool(t, "sleep"), "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { sleep.Process.Kill(); _ = sleep.Wait() }()
	p, _ := start(t, Config{})
	m := NewMemory(MemoryConfig{Kinds: []string{KindHeap}})
	defer m.Close()
	for name, a := range map[string]struct {
		adder
		o    *opener
		full int // a program that fills the table of images
		next int // one that finds no room in it
	}{"samples": {p, &p.opener, spin.PID, heap.PID}, "memory": {m, &m.opener, heap.PID, spin.PID}} {
		t.Run(name, func(t *testing.T) {
			refused(t, a.Add(1<<22), os.ErrNotExist, "process 4194304", "PID namespace")
			refused(t, a.Add(sleep.Process.Pid), objfile.ErrNotGo, "(sleep) is not a Go program: /", "no section is the Go linker's")
			refused(t, a.Add(2), objfile.ErrNotGo, "a kernel thread")
			a.o.images.MaxFiles = 1
			if err := a.Add(a.full); err != nil {
				t.Fatal(err)
			}
			err := a.Add(a.next)
			refused(t, err, objfile.ErrTooManyFiles, "could not be found out", "1 images are open")
			if errors.Is(err, objfile.ErrNotGo) {
				t.Errorf("a limit of ours is taken for the program's kind: %v", err)
			}
		})
	}
}

// TestHasMemory: a process has none from the moment on when its first thread has ended, though another one still runs.
func TestHasMemory(t *testing.T) {
	source := filepath.Join(t.TempDir(), "leader.c")
	err := os.WriteFile(source, []byte(`
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *rest(void *p) { sleep(60); return p; }
int main(void) {
	pthread_t t;
	pthread_create(&t, NULL, rest, NULL);
	getchar();
	pthread_exit(NULL);
}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	bin := strings.TrimSuffix(source, ".c")
	if out, err := exec.CommandContext(t.Context(), needs.Tool(t, "gcc"), "-pthread", "-o", bin, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); _ = cmd.Wait() }()
	o := newOpener("/proc")
	p := process{pid: uint32(cmd.Process.Pid)}
	if !o.hasMemory(&p) {
		t.Fatal("none while its first thread runs")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); o.hasMemory(&p); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("some after its first thread has ended")
		}
	}
	if threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid)); err != nil || len(threads) != 2 {
		t.Errorf("the other thread has ended, too: %d, %v", len(threads), err)
	}
}

func refused(t *testing.T, err, want error, texts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q says nothing of %q", err, text)
		}
	}
}
