// Package leaks fails a package's tests that leave goroutines, file descriptors or mapped kernel objects behind:
//
//	func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
//
// BPF maps, programs, links and perf events are file descriptors, too (anon_inode:bpf-map, ...). The kernel keeps one also
// as long as it is mapped, as ring buffers are: so mappings count.
package leaks

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
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
	kernel     map[string]string // descriptors and mappings: which one, to what it is
	goroutines goleak.Option
}

func take() snapshot { return snapshot{kernel(), goleak.IgnoreCurrent()} }

// left waits until nothing is there that was not in s, and returns what stays. Maps that cilium/ebpf has mapped are given back by the
// garbage collector (ebpf.Memory), which may not have come yet.
func (s snapshot) left(patience time.Duration) []string {
	runtime.GC()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := s.since()
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// since lists what is there now and not in s. goleak waits a little for goroutines by itself.
func (s snapshot) since() (left []string) {
	if err := goleak.Find(s.goroutines); err != nil {
		left = append(left, err.Error())
	}
	now := kernel()
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if s.kernel[key] != now[key] {
			left = append(left, key+", "+now[key])
		}
	}
	return left
}

// kernel lists what the kernel holds for the process.
func kernel() map[string]string {
	held := make(map[string]string)
	addFiles(held)
	addMappings(held)
	return held
}

// addFiles leaves out what belongs to the runtime's network poller.
func addFiles(held map[string]string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		what, err := os.Readlink(link)
		if err == nil && what != "anon_inode:[eventpoll]" && what != "anon_inode:[eventfd]" {
			held["file descriptor "+filepath.Base(link)] = what
		}
	}
}

// addMappings takes what is no memory and no file: ring buffers of BPF and perf.
func addMappings(held map[string]string) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 5 && strings.HasPrefix(fields[5], "anon_inode:") {
			held["mapping "+fields[0]] = fields[5]
		}
	}
}
