// Package leaks fails a package's tests that leave file descriptors or goroutines behind:
//
//	func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
package leaks

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long what the last test began may take to end.
const patience = 3 * time.Second

// Run runs the tests and returns the exit code, which is 1 where they succeed and leave something behind.
func Run(m *testing.M) int {
	before := take()
	code := m.Run()
	if code != 0 {
		return code
	}
	left := before.left(patience)
	for _, what := range left {
		fmt.Fprintln(os.Stderr, "leaked:", what)
	}
	return min(len(left), 1)
}

// snapshot is what the process has.
type snapshot struct {
	files      map[string]string // /proc/self/fd: number to what it is
	goroutines map[string]string // "goroutine 7" to its stack
}

func take() snapshot { return snapshot{files(), goroutines()} }

// left waits until nothing is there that was not in s, and returns what stays.
func (s snapshot) left(patience time.Duration) []string {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := s.since(take())
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// since lists what is in now and not in s.
func (s snapshot) since(now snapshot) (left []string) {
	for _, fd := range slices.Sorted(maps.Keys(now.files)) {
		if s.files[fd] != now.files[fd] {
			left = append(left, "file descriptor "+fd+", "+now.files[fd])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(now.goroutines)) {
		if _, ok := s.goroutines[id]; !ok {
			left = append(left, now.goroutines[id])
		}
	}
	return left
}

// files leaves out what belongs to the runtime's network poller.
func files() map[string]string {
	open := make(map[string]string)
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		what, err := os.Readlink(link)
		if err == nil && what != "anon_inode:[eventpoll]" && what != "anon_inode:[eventfd]" {
			open[filepath.Base(link)] = what
		}
	}
	return open
}

// goroutines leaves out the caller and the one that package os/signal keeps.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	all := make(map[string]string)
	for i, stack := range strings.Split(string(buf), "\n\n") {
		id, _, _ := strings.Cut(stack, " [")
		if i > 0 && !strings.Contains(stack, "\nos/signal.loop(") {
			all[id] = stack
		}
	}
	return all
}
