package cgroup

import (
	"path/filepath"
	"strconv"
	"strings"
)

// CPUs is how many CPUs a process may use at a time, by the tightest quota of its groups; ok: there is one. procRoot is "/proc".
func CPUs(procRoot string, pid int) (cpus float64, ok bool, err error) {
	dirs, v1, err := groupsOf(procRoot, pid, "cpu")
	if err != nil {
		return 0, false, err
	}
	for _, dir := range dirs {
		if n, limited := quota(dir, v1); limited && (!ok || n < cpus) {
			cpus, ok = n, true
		}
	}
	return cpus, ok, nil
}

// quota is that of one group: cpu.max has "max 100000", or "50000 100000", microseconds of so many; version 1 has a file for each,
// and -1 for no limit.
func quota(dir string, v1 bool) (cpus float64, ok bool) {
	read := func(name string) string {
		b, _ := readFile(filepath.Join(dir, name)) // a group may have none
		return string(b)
	}
	words := strings.Fields(read("cpu.max"))
	if v1 {
		words = append(strings.Fields(read("cpu.cfs_quota_us")), strings.Fields(read("cpu.cfs_period_us"))...)
	}
	if len(words) != 2 {
		return 0, false
	}
	used, err := strconv.ParseUint(words[0], 10, 63)
	period, errPeriod := strconv.ParseUint(words[1], 10, 63)
	if err != nil || errPeriod != nil || period == 0 {
		return 0, false
	}
	return float64(used) / float64(period), true
}
