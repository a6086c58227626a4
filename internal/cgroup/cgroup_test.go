package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a fixture: files by path below a directory; @ stands for the directory in them.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "@", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	meminfo = "MemTotal:       1000000 kB\nMemFree:  1 kB\nMemAvailable:    900000 kB\n"
	v1Mount = "30 24 0:26 / @/cg/cpu rw - cgroup cgroup rw,cpu\n31 24 0:27 / @/cg/memory rw shared:9 - cgroup cgroup rw,memory\n"
	v2Mount = "30 24 0:26 / @/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestPressure(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  Pressure
	}{
		"version 1": {map[string]string{
			"proc/7/cgroup": "5:cpu,cpuacct:/\n4:memory:/a/b\n0::/\n", "proc/self/mountinfo": v1Mount,
			"cg/memory/a/b/memory.limit_in_bytes": "1000\n", "cg/memory/a/b/memory.usage_in_bytes": "900\n",
			"cg/memory/a/b/memory.stat":         "inactive_file 5\ntotal_inactive_file 100\ntotal_active_file 50\n",
			"cg/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
			"cg/memory/a/memory.usage_in_bytes": "1\n",
		}, Pressure{750, 1000}},
		"version 2": {map[string]string{
			"proc/7/cgroup": "0::/a.slice/b\n", "proc/self/mountinfo": v2Mount,
			"cg/a.slice/b/memory.max": "1000\n", "cg/a.slice/b/memory.current": "900\n", "cg/a.slice/b/memory.stat": "anon 700\ninactive_file 100\nactive_file 0\n",
			"cg/a.slice/memory.max": "max\n", "cg/a.slice/memory.current": "1\n",
		}, Pressure{800, 1000}},
		"an outer group is the narrowest": {map[string]string{
			"proc/7/cgroup": "0::/a/b\n", "proc/self/mountinfo": v2Mount,
			"cg/a/b/memory.max": "1000\n", "cg/a/b/memory.current": "500\n",
			"cg/a/memory.max": "2000\n", "cg/a/memory.current": "1900\n",
		}, Pressure{1900, 2000}},
		"the machine is": {map[string]string{
			"proc/7/cgroup": "0::/a\n", "proc/self/mountinfo": v2Mount, "cg/a/memory.max": "1000000000000\n", "cg/a/memory.current": "1\n",
		}, Pressure{100000 << 10, 1000000 << 10}},
		"a container, whose mount begins at its group": {map[string]string{
			"proc/7/cgroup": "4:memory:/docker/x/y\n", "proc/self/mountinfo": "31 24 0:27 /docker/x @/cg/memory rw - cgroup cgroup rw,memory\n",
			"cg/memory/y/memory.limit_in_bytes": "10", "cg/memory/y/memory.usage_in_bytes": "9",
		}, Pressure{9, 10}},
		"a group outside of what is mounted": {map[string]string{
			"proc/7/cgroup": "0::/../x\n", "proc/self/mountinfo": v2Mount, "x/memory.max": "10", "x/memory.current": "9",
		}, Pressure{100000 << 10, 1000000 << 10}},
		"no group": {map[string]string{"proc/7/cgroup": "", "proc/self/mountinfo": v2Mount}, Pressure{100000 << 10, 1000000 << 10}},
	} {
		t.Run(name, func(t *testing.T) {
			c.files["proc/meminfo"] = meminfo
			m, err := Open(filepath.Join(machine(t, c.files), "proc"), 7)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := m.Pressure(); err != nil || got != c.want || got.Free() != c.want.Limit-c.want.Used {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

// TestPressureHere: a process of this machine has a limit, of which something is used.
func TestPressureHere(t *testing.T) {
	m, err := Open("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := m.Pressure(); err != nil || p.Used == 0 || p.Used >= p.Limit {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := Open("/proc", 1<<22); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	dir := machine(t, map[string]string{"proc/7/cgroup": "", "proc/self/mountinfo": ""})
	m, err = Open(filepath.Join(dir, "proc"), 7)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := m.Pressure(); !errors.Is(err, ErrNoMemory) {
		t.Error(fmt.Sprint(p), err)
	}
}
