package leaks

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

func TestFileIsFoundUntilItIsClosed(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		needs.Missing(t, "proc", err.Error())
	}
	before := take()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if left := before.left(0); len(left) != 1 || !strings.Contains(left[0], os.DevNull) {
		t.Errorf("left %q, want the file", left)
	}
	f.Close()
	if left := before.left(time.Second); len(left) != 0 {
		t.Errorf("left %q after Close", left)
	}
}

func TestGoroutineIsFoundUntilItEnds(t *testing.T) {
	before := take()
	end := make(chan struct{})
	go func() { <-end }()
	if left := before.left(0); len(left) != 1 || !strings.Contains(left[0], "TestGoroutineIsFound") {
		t.Errorf("left %q, want the goroutine", left)
	}
	close(end)
	if left := before.left(time.Second); len(left) != 0 {
		t.Errorf("left %q after its end", left)
	}
}
