package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestCPUs(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  float64 // 0: no limit
	}{
		"version 1": {map[string]string{
			"proc/7/cgroup": "5:cpu,cpuacct:/a/b\n4:memory:/\n0::/\n", "proc/self/mountinfo": v1Mount,
			"cg/cpu/a/b/cpu.cfs_quota_us": "-1\n", "cg/cpu/a/b/cpu.cfs_period_us": "100000\n",
			"cg/cpu/a/cpu.cfs_quota_us": "250000\n", "cg/cpu/a/cpu.cfs_period_us": "100000\n",
		}, 2.5},
		"version 2, the tightest counts": {map[string]string{
			"proc/7/cgroup": "0::/a.slice/b\n", "proc/self/mountinfo": v2Mount,
			"cg/a.slice/b/cpu.max": "200000 100000\n", "cg/a.slice/cpu.max": "25000 50000\n", "cg/cpu.max": "max 100000\n",
		}, 0.5},
		"no limit":       {map[string]string{"proc/7/cgroup": "0::/a\n", "proc/self/mountinfo": v2Mount, "cg/a/cpu.max": "max 100000\n"}, 0},
		"no period":      {map[string]string{"proc/7/cgroup": "0::/a\n", "proc/self/mountinfo": v2Mount, "cg/a/cpu.max": "1000 0\n"}, 0},
		"nothing to see": {map[string]string{"proc/7/cgroup": "0::/../x\n", "proc/self/mountinfo": v2Mount, "x/cpu.max": "1000 100000\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok, err := CPUs(filepath.Join(machine(t, c.files), "proc"), 7)
			if err != nil || got != c.want || ok != (c.want > 0) {
				t.Errorf("%v, %v, %v; want %v", got, ok, err, c.want)
			}
		})
	}
	if _, _, err := CPUs("/proc", os.Getpid()); err != nil {
		t.Errorf("here: %v", err)
	}
	if _, _, err := CPUs("/proc", 1<<22); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}
