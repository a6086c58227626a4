// Package cgroup says what limits a process: how near it is to the memory limit at which the kernel kills, and how many CPUs it
// may use.
//
// Sources: Documentation/admin-guide/cgroup-v2.rst (Memory Interface Files, CPU Interface Files), cgroup-v1/memory.rst,
// Documentation/scheduler/sched-bwc.rst, proc_pid_mountinfo(5), cgroups(7).
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Bounds on what is read.
const (
	maxFile   = 1 << 20 // of /proc/PID/cgroup, memory.stat, /proc/meminfo
	maxLine   = 64 << 10
	maxMounts = 100_000
	maxDepth  = 64 // of nested groups
)

// ErrNoMemory is wrapped by errors that say that nothing limits memory, as far as can be seen from here.
var ErrNoMemory = errors.New("no memory limit is known")

// Memory is what limits a process: the groups that it was in at Open, and the machine. Nothing stays open.
type Memory struct {
	procRoot string
	groups   []string // directories, the innermost first
	files    *files
}

// files are the names in one version of the memory controller.
type files struct {
	limit, usage string
	cache        []string // lines of memory.stat: pages of files, which are given up before anybody is killed
}

func version1() *files {
	return &files{"memory.limit_in_bytes", "memory.usage_in_bytes", []string{"total_inactive_file", "total_active_file"}}
}

func version2() *files {
	return &files{"memory.max", "memory.current", []string{"inactive_file", "active_file"}}
}

// Open finds the groups of a process. procRoot is "/proc". A process whose groups cannot be seen, as in some containers, is
// limited by the machine alone.
func Open(procRoot string, pid int) (*Memory, error) {
	groups, v1, err := groupsOf(procRoot, pid, "memory")
	if err != nil {
		return nil, err
	}
	m := &Memory{procRoot: procRoot, groups: groups, files: version2()}
	if v1 {
		m.files = version1()
	}
	return m, nil
}

// groupsOf finds the directories of the groups, the innermost first, that a controller puts a process into; v1: of version 1 of
// that controller. There are none where they cannot be seen.
func groupsOf(procRoot string, pid int, controller string) (dirs []string, v1 bool, err error) {
	lines, err := readFile(filepath.Join(procRoot, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, false, fmt.Errorf("read the control groups of process %d: %w", pid, err)
	}
	path, v1 := groupPath(lines, controller)
	if !v1 {
		path, _ = groupPath(lines, "")
	}
	mounts, err := os.Open(filepath.Join(procRoot, "self", "mountinfo"))
	if err != nil {
		return nil, false, fmt.Errorf("find the file system of control groups: %w", err)
	}
	defer mounts.Close()
	mounted := controller
	if !v1 {
		mounted = ""
	}
	if root, point, ok := findMount(mounts, mounted); ok && path != "" {
		dirs = ancestors(root, point, path)
	}
	return dirs, v1, nil
}

// groupPath finds the line "ID:CONTROLLERS:PATH" of a controller; "" is version 2.
func groupPath(lines []byte, controller string) (path string, ok bool) {
	for line := range bytes.Lines(lines) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) == 3 && (controller == "" && f[1] == "" || controller != "" && slices.Contains(strings.Split(f[1], ","), controller)) {
			return f[2], true
		}
	}
	return "", false
}

// findMount finds where a controller's files are, those of version 2 for "": which group is mounted, and where.
func findMount(r io.Reader, controller string) (root, point string, ok bool) {
	br := bufio.NewReaderSize(r, maxLine)
	for range maxMounts {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return "", "", false
		}
		before, after, _ := strings.Cut(string(line), " - ")
		f, fs := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(fs) < 3 {
			continue
		}
		if controller == "" && fs[0] == "cgroup2" ||
			controller != "" && fs[0] == "cgroup" && slices.Contains(strings.Split(fs[2], ","), controller) {
			return unescape(f[3]), unescape(f[4]), true
		}
	}
	return "", "", false
}

// unescape undoes \040 for a space, and the like.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// ancestors are the directories of a group and of those around it, as far as they are mounted.
func ancestors(root, point, path string) []string {
	rel, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return nil
	}
	var dirs []string
	for range maxDepth {
		dirs = append(dirs, filepath.Join(point, rel))
		if rel == "." {
			break
		}
		rel = filepath.Dir(rel)
	}
	return dirs
}

// Pressure is how much of a limit is in use, in bytes. Pages of files, which the kernel takes back first, do not count.
type Pressure struct{ Used, Limit uint64 }

// Free is what is left.
func (p Pressure) Free() uint64 { return p.Limit - min(p.Used, p.Limit) }

// Pressure is that of the limit which leaves the least: of a group, or the machine's memory. The error wraps ErrNoMemory
// where there is none.
func (m *Memory) Pressure() (Pressure, error) {
	worst := m.machine()
	for _, dir := range m.groups {
		if p, ok := m.group(dir); ok && (worst.Limit == 0 || p.Free() < worst.Free()) {
			worst = p
		}
	}
	if worst.Limit == 0 {
		return Pressure{}, fmt.Errorf("read memory limits in %q: %w", m.groups, ErrNoMemory)
	}
	return worst, nil
}

// group reads one group's limit; ok is false where it has none.
func (m *Memory) group(dir string) (p Pressure, ok bool) {
	limit, err := readFile(filepath.Join(dir, m.files.limit))
	if err != nil {
		return Pressure{}, false
	}
	if p.Limit, err = strconv.ParseUint(strings.TrimSpace(string(limit)), 10, 64); err != nil || p.Limit == 0 || p.Limit >= 1<<62 {
		return Pressure{}, false // "max", or version 1's largest number of pages
	}
	usage, err := readFile(filepath.Join(dir, m.files.usage))
	if err != nil {
		return Pressure{}, false
	}
	if p.Used, err = strconv.ParseUint(strings.TrimSpace(string(usage)), 10, 64); err != nil {
		return Pressure{}, false
	}
	stat, _ := readFile(filepath.Join(dir, "memory.stat")) // without it all counts
	for _, name := range m.files.cache {
		p.Used -= min(p.Used, value(stat, name+" "))
	}
	return p, true
}

// machine is the whole machine's memory, as /proc/meminfo has it (in KiB).
func (m *Memory) machine() Pressure {
	info, err := readFile(filepath.Join(m.procRoot, "meminfo"))
	if err != nil {
		return Pressure{}
	}
	total, available := value(info, "MemTotal:")<<10, value(info, "MemAvailable:")<<10
	return Pressure{Used: total - min(available, total), Limit: total}
}

// value is the number behind key at the beginning of a line; 0: there is none.
func value(lines []byte, key string) uint64 {
	for line := range bytes.Lines(lines) {
		rest, ok := bytes.CutPrefix(line, []byte(key))
		if f := bytes.Fields(rest); ok && len(f) > 0 {
			n, err := strconv.ParseUint(string(f[0]), 10, 63)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}
