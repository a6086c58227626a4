package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
)

// chooseTargets finds the running processes that the flags name, in the order of their PIDs behind those of -p. There
// are none where a program is to be run.
func chooseTargets(ctx context.Context, stderr io.Writer, o *recordOptions) ([]*discover.Process, error) {
	in := discover.NewInspector(procRoot)
	var targets []*discover.Process
	for _, pid := range o.pids {
		p, err := in.Inspect(pid)
		if err != nil {
			return nil, explainPID(pid, err)
		}
		if err := leads(in.Proc(pid)); err != nil {
			return nil, err
		}
		targets = append(targets, p)
	}
	if len(o.comms)+len(o.exes) == 0 {
		return targets, nil
	}
	matched, err := match(ctx, stderr, in, o)
	if err != nil {
		return nil, err
	}
	targets = append(targets, matched...)
	if len(targets) == 0 {
		return nil, fmt.Errorf("no Go process matches %s; pprofd ps lists them", patterns(o))
	}
	return targets, nil
}

// patterns are the selecting flags as they were typed.
func patterns(o *recordOptions) string {
	var words []string
	for _, p := range o.comms {
		words = append(words, fmt.Sprintf("--comm %q", p))
	}
	for _, p := range o.exes {
		words = append(words, fmt.Sprintf("--exe %q", p))
	}
	return strings.Join(words, " or ")
}

// match finds the processes that --comm and --exe name and tells which of those it leaves out and why. Pprofd itself
// and the processes of -p are left out in silence.
func match(ctx context.Context, stderr io.Writer, in *discover.Inspector, o *recordOptions) ([]*discover.Process, error) {
	pids, err := in.PIDs()
	if err != nil {
		return nil, err
	}
	skip := map[int]bool{os.Getpid(): true}
	for _, pid := range o.pids {
		skip[pid] = true
	}
	var matched []*discover.Process
	for _, pid := range pids {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if skip[pid] || !matches(in.Proc(pid), o) {
			continue
		}
		switch p, err := in.Inspect(pid); {
		case err == nil:
			matched = append(matched, p)
		case !discover.Gone(err):
			fmt.Fprintf(stderr, "pprofd: left out: %v\n", explainPID(pid, err))
		}
	}
	return matched, nil
}

func matches(proc procfs.Proc, o *recordOptions) bool {
	stat, err := proc.Stat()
	if err != nil {
		return false
	}
	if matchAny(o.comms, stat.Comm) {
		return true
	}
	if len(o.exes) == 0 {
		return false
	}
	exe, err := proc.Exe()
	return err == nil && matchAny(o.exes, strings.TrimSuffix(exe, " (deleted)"))
}

// matchAny: the patterns have been checked, so that the only error cannot happen.
func matchAny(patterns []string, s string) bool {
	for _, pattern := range patterns {
		if ok, _ := path.Match(pattern, s); ok {
			return true
		}
	}
	return false
}

// explainPID names the process that err is about, and what to do.
func explainPID(pid int, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("process %d: no right to look at it: %w (%s)", pid, err, whoMayLook())
	case errors.Is(err, discover.ErrZombie):
		return fmt.Errorf("process %d %w", pid, err)
	case discover.Gone(err):
		return toldError{fmt.Sprintf("no such process: %d", pid), os.ErrNotExist}
	case errors.Is(err, objfile.ErrNotGo), errors.Is(err, discover.ErrKernelThread):
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return fmt.Errorf("process %d cannot be read: %w", pid, err)
}

// whoMayLook is the way out where a process of another user cannot be read.
func whoMayLook() string {
	root := os.Geteuid() == 0
	says := "run with sudo, or with CAP_SYS_PTRACE"
	if root {
		says = "root it is: a container without CAP_SYS_PTRACE, or a security module, forbids it"
	}
	if hint := yamaHint(procRoot, root); hint != "" {
		says += "; " + hint
	}
	return says
}

// leads refuses the number of a thread, which /proc answers to as if it were a process (proc(5): they are only hidden).
func leads(proc procfs.Proc) error {
	pid := proc.PID
	data, err := os.ReadFile(proc.Path("status"))
	if err != nil {
		return explainPID(pid, err)
	}
	for line := range bytes.Lines(data) {
		var leader int
		if n, _ := fmt.Sscanf(string(line), "Tgid:%d", &leader); n == 1 && leader != pid {
			return fmt.Errorf("%d is a thread of process %d: give that", pid, leader)
		}
	}
	return nil
}
