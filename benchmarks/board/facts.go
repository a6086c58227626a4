package board

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Fact is one line about the machine.
type Fact struct{ Key, Value string }

// Facts describe the machine and the agents; a version that cannot be had is left out.
func Facts(ctx context.Context) []Fact {
	list := []Fact{
		{"date", time.Now().UTC().Format(time.DateTime)},
		{"goos", runtime.GOOS}, {"goarch", runtime.GOARCH}, {"pkg", "github.com/pprofd/pprofd/benchmarks"},
		{"cpu", cpuModel()}, {"cpus", strconv.Itoa(runtime.NumCPU())}, {"kernel", kernelRelease()}, {"go", runtime.Version()},
	}
	for _, tool := range [][]string{{"bpftrace", "--version"}, {"perf", "--version"}, {"git", "rev-parse", "--short", "HEAD"}} {
		if out, err := Command(ctx, tool[0], tool[1:]...); err == nil {
			list = append(list, Fact{tool[0], strings.TrimSpace(out)})
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		list = append(list, Fact{"loadavg", string(bytes.TrimSpace(b))})
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

// Command returns the standard output of a program.
func Command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(out), nil
}
