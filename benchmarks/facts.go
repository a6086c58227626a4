package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fact is one line about the machine.
type fact struct{ key, value string }

// facts describe the machine and the agents; a version that cannot be had is left out.
func (h *harness) facts(ctx context.Context) []fact {
	list := []fact{
		{"date", time.Now().UTC().Format(time.DateTime)},
		{"goos", runtime.GOOS}, {"goarch", runtime.GOARCH}, {"pkg", "github.com/pprofd/pprofd/benchmarks"},
		{"cpu", cpuModel()}, {"cpus", strconv.Itoa(runtime.NumCPU())}, {"kernel", kernelRelease()}, {"go", runtime.Version()},
	}
	for _, tool := range [][]string{{"bpftrace", "--version"}, {"perf", "--version"}, {"git", "rev-parse", "--short", "HEAD"}} {
		if out, err := command(ctx, tool[0], tool[1:]...); err == nil {
			list = append(list, fact{tool[0], strings.TrimSpace(out)})
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		list = append(list, fact{"loadavg", string(bytes.TrimSpace(b))})
	}
	return list
}

var modelName = regexp.MustCompile(`(?m)^model name\s*: (.*)$`)

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if m := modelName.FindSubmatch(b); err == nil && m != nil {
		return string(m[1])
	}
	return "unknown"
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
