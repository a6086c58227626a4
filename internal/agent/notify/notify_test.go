package notify

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// systemd listens as the service manager does.
func systemd(t *testing.T) *net.UnixConn {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return c
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestMessages(t *testing.T) {
	c := systemd(t)
	for _, m := range []struct {
		send func() error
		want string
	}{
		{func() error { return Ready("profiles 3\nprocesses") }, "READY=1\nSTATUS=profiles 3 processes"},
		{Stopping, "STOPPING=1"},
		{func() error { return Status("x") }, "STATUS=x"},
	} {
		if err := m.send(); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, c); got != m.want {
			t.Errorf("%q, want %q", got, m.want)
		}
	}
	if err := Reloading(); err != nil {
		t.Fatal(err)
	}
	usec, ok := strings.CutPrefix(receive(t, c), "RELOADING=1\nMONOTONIC_USEC=")
	if n, err := strconv.ParseUint(strings.TrimSpace(usec), 10, 64); !ok || err != nil || n == 0 { // systemd.service(5), Type=notify-reload, needs it
		t.Errorf("RELOADING: %q", usec)
	}
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready("x"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Watchdog(ctx, func() error { t.Error("nobody wants to know"); return nil }, nil); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := Ready("x"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "NOTIFY_SOCKET") {
		t.Errorf("%v", err)
	}
	t.Setenv("WATCHDOG_USEC", "x")
	if err := Watchdog(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
		t.Errorf("%v", err)
	}
}

// An agent that is stuck is silent.
func TestWatchdog(t *testing.T) {
	c := systemd(t)
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stuck atomic.Bool
	var failures atomic.Int64
	done := make(chan error)
	go func() {
		done <- Watchdog(ctx, func() error {
			if stuck.Load() {
				return errors.New("stuck")
			}
			return nil
		}, func(err error) {
			if err.Error() == "stuck" {
				failures.Add(1)
			}
		})
	}()
	began := time.Now()
	for range 5 {
		if got := receive(t, c); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	if d := time.Since(began); d < 40*time.Millisecond {
		t.Errorf("5 messages in %v", d)
	}
	stuck.Store(true)
	time.Sleep(50 * time.Millisecond)
	for { // what was sent before
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 64)); err != nil {
			break
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 64)); err == nil {
		t.Errorf("%d bytes from an agent that is stuck", n)
	}
	if failures.Load() == 0 {
		t.Error("nobody was told")
	}
	stuck.Store(false)
	if got := receive(t, c); got != "WATCHDOG=1" {
		t.Errorf("%q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
