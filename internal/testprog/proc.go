package testprog

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// readyTimeout bounds the time from start to the line "ready".
const readyTimeout = time.Minute

// Emulated says that the test runs in a machine of kerneltest, which qemu emulates: a trap or an interrupt there costs 100 µs and
// more, on a busy host several times as much. Whoever compares has the same to compare, after less of it.
func Emulated() bool { return os.Getenv("PPROFD_KERNELTEST") != "" }

// Proc is a running target program.
type Proc struct {
	PID int

	cmd    *exec.Cmd
	exited chan struct{} // closed after the output was read to its end and the process reaped
	err    error         // of Wait; valid once exited is closed

	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed and replaced with every line
	stderr  bytes.Buffer
}

// StartOptions are what else a program may be started with.
type StartOptions struct {
	Env     []string // added to the environment, such as "GODEBUG=asyncpreemptoff=1"
	NoReady bool     // do not wait for the line "ready"
	Stdin   *os.File // nil: none
}

// Start runs the program at path and returns once it has printed a line that begins with "ready".
// When the test ends the process is killed, if it still runs, and reaped.
func Start(t testing.TB, path string, args ...string) *Proc {
	t.Helper()
	return StartWith(t, StartOptions{}, path, args...)
}

// StartWith is Start with options.
func StartWith(t testing.TB, o StartOptions, path string, args ...string) *Proc {
	t.Helper()
	p, err := Launch(o, path, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// Launch is StartWith without a test: the caller has to Stop the process.
func Launch(o StartOptions, path string, args ...string) (*Proc, error) {
	p := &Proc{cmd: exec.Command(path, args...), exited: make(chan struct{}), changed: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), o.Env...)
	p.cmd.Stderr = &p.stderr
	if o.Stdin != nil {
		p.cmd.Stdin = o.Stdin
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p.PID = p.cmd.Process.Pid
	go p.read(out)
	if o.NoReady {
		return p, nil
	}
	if _, err := p.Await("ready", readyTimeout); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

func (p *Proc) read(r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, sc.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, r) // after a line too long: never block the target
	p.err = p.cmd.Wait()
	close(p.exited)
}

// Lines returns what the program has written to its standard output so far.
func (p *Proc) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// find returns the first line with the prefix, and a channel that is closed when there is more to look at.
func (p *Proc) find(prefix string) (string, bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.HasPrefix(line, prefix) {
			return line, true, nil
		}
	}
	return "", false, p.changed
}

// WaitLine is Await; the test fails where it does.
func (p *Proc) WaitLine(t testing.TB, prefix string, timeout time.Duration) string {
	t.Helper()
	line, err := p.Await(prefix, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// Await waits for the first line that begins with prefix and returns it; it fails if the program ends without it or
// the timeout passes.
func (p *Proc) Await(prefix string, timeout time.Duration) (string, error) {
	deadline := time.After(timeout)
	for {
		line, ok, changed := p.find(prefix)
		if ok {
			return line, nil
		}
		select {
		case <-changed:
		case <-p.exited:
			if line, ok, _ := p.find(prefix); ok {
				return line, nil
			}
			return "", fmt.Errorf("%s ended (%v) without a line %q\noutput: %q\nstderr: %s", p.cmd.Path, p.cmd.ProcessState, prefix, p.Lines(), p.stderr.String())
		case <-deadline:
			return "", fmt.Errorf("%s: no line %q within %v; output so far: %q", p.cmd.Path, prefix, timeout, p.Lines())
		}
	}
}

// Wait waits for the program's own end, fails the test if that was not a success, and returns its output.
func (p *Proc) Wait(t testing.TB, timeout time.Duration) []string {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(timeout):
		t.Fatalf("%s still runs after %v", p.cmd.Path, timeout)
	}
	if p.err != nil {
		t.Fatalf("%s: %v\n%s", p.cmd.Path, p.err, p.stderr.String())
	}
	return p.Lines()
}

// Stderr is what the process, which has ended, has written to its standard error.
func (p *Proc) Stderr() string {
	<-p.exited
	return p.stderr.String()
}

// Exited is closed when the process has ended and was reaped.
func (p *Proc) Exited() <-chan struct{} { return p.exited }

// CPUTime is user plus system time of the process that has exited, as the kernel's wait4 reports it.
func (p *Proc) CPUTime() time.Duration {
	<-p.exited
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// Stop kills the process, if it still runs, and waits until it is gone.
func (p *Proc) Stop() {
	p.cmd.Process.Kill()
	<-p.exited
}
