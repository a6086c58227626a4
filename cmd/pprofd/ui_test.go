package main

import (
	"encoding/base64"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/browser"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// program copies a test program to a place, and under a name, of the test's own.
func program(t *testing.T, dir, name, as string) string {
	t.Helper()
	b, err := os.ReadFile(testprog.Build(t, name, testprog.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, as)
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// startService starts a copy of the service, which ends with its input.
func startService(t *testing.T, path string, args ...string) (pid int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// lookAt starts an agent for the programs in a directory, and a browser that has its token.
func lookAt(t *testing.T, programs string) *browser.Tab {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	a := startAgent(t, programs, nil, "--listen", addr)
	token, err := os.ReadFile(filepath.Join(a.dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	return browser.Open(t, "http://"+addr, "Basic "+base64.StdEncoding.EncodeToString([]byte("pprofd:"+strings.TrimSpace(string(token)))))
}

// TestBrowserAgent looks at what an agent shows of programs, as a person does. One of them is known to the sample, and another has a
// name that is markup.
func TestBrowserAgent(t *testing.T) {
	needs.Root(t)
	needs.BPF(t)
	const markup = `<img src=x onerror=alert(1)>` // its comm is the first 15 bytes
	dir := t.TempDir()
	spin := testprog.Start(t, program(t, dir, "spin", "spin"), "-threads", "2", "-seconds", "600").PID
	evil := startService(t, program(t, dir, "service", markup), "-clients", "1", "-pause", "5ms")
	service := startService(t, program(t, dir, "service", "service"), "-clients", "2", "-pause", "2ms")
	memory := testprog.Start(t, program(t, dir, "heap", "heap"), "-quiet").PID
	b := lookAt(t, dir)
	b.Open("/")
	for _, p := range []int{spin, evil, service, memory} {
		if n := browser.Eval[int](b, fmt.Sprintf(`document.querySelectorAll('#processes a[href^="/pid/%d/ui/"]').length`, p)); n == 0 {
			t.Errorf("process %d is not listed: %s", p, b.Text())
		}
	}
	if text := b.Text(); !strings.Contains(text, markup[:15]) || !strings.Contains(text, "go1.") {
		t.Errorf("the page lacks a name: %s", text)
	}
	b.Shoot("agent-index")

	began := time.Now()
	before, _ := usedCPU(spin)
	b.Run(chromedp.Click(browser.CSS(fmt.Sprintf(`#processes a[href="/pid/%d/ui/profile/flamegraph?seconds=5"]`, spin))))
	shares := b.Boxes()
	used, _ := usedCPU(spin)
	samples := 100 * 5 * float64(used-before) / float64(time.Since(began)) // 100 Hz for 5 s: on a busy machine it has a part of them
	for name, want := range map[string]float64{"main.alpha": 0.4, "main.beta": 0.3, "main.gamma": 0.2, "main.delta": 0.1} {
		if got := shares[name]; math.Abs(got-want) > max(0.08, 4*math.Sqrt(want*(1-want)/samples)) {
			t.Errorf("%s has %.3f of the width, want %.1f of %.0f samples: %v", name, got, want, samples, shares)
		}
	}
	b.Open(fmt.Sprintf("/pid/%d/ui/heap/top", memory))
	if text := b.Text(); !strings.Contains(text, "main.") || !strings.Contains(text, "memory in use") {
		t.Errorf("heap: %s", text)
	}
	b.Open(fmt.Sprintf("/pid/%d/ui/profile/flamegraph?seconds=2", evil))
	if shares := b.Boxes(); len(shares) < 10 {
		t.Errorf("%v", shares)
	}
	b.Run(chromedp.Sleep(100 * time.Millisecond))
	b.Open("/service/service/ui/profile/flamegraph?seconds=2&base=profile")
	b.Boxes()
	if text := b.Text(); !strings.Contains(text, "less CPU time of 2 s") {
		t.Error(text)
	}
	b.Shoot("agent-compare")
	b.Open(fmt.Sprintf("/pid/%d/ui/profile/flamegraph?seconds=3", service))
	b.Boxes()
	b.Shoot("agent-flamegraph")
	b.Clean()
}
