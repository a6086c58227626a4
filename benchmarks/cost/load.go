package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/bpf"
)

// loadCommand makes this program load pprofd's BPF programs once, in a process that has loaded none before.
const loadCommand = "load-once"

// loadOnce prints the time of bpf.Load in ns, and the CPU time of the process meanwhile, then a line for each program: name, instructions that the verifier walked.
func loadOnce(w io.Writer) (err error) {
	began, used := time.Now(), ownCPU()
	p, err := bpf.Load(bpf.Options{})
	took, usedAfter := time.Since(began), ownCPU()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	fmt.Fprintln(w, took.Nanoseconds(), (usedAfter - used).Nanoseconds())
	programs, err := p.Programs()
	for _, prog := range programs {
		fmt.Fprintln(w, prog.Name, prog.VerifiedInstructions)
	}
	return err
}

// ownCPU is the CPU time of this process so far; 0 where the kernel does not tell, which it does.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measureLoad takes how long bpf.Load takes in a fresh process, and what the verifier has to do.
func measureLoad(ctx context.Context, _ *agents.Harness, r *board.Report, c *config) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for range 2 * c.rounds {
		out, err := board.Command(ctx, self, loadCommand)
		if err != nil {
			return err
		}
		first, rest, _ := strings.Cut(out, "\n")
		var ns, cpu int64
		if _, err := fmt.Sscan(first, &ns, &cpu); err != nil {
			return fmt.Errorf("%q: %w", out, err)
		}
		r.Add("Load/agent=pprofd", 1, board.Value{V: float64(ns) / 1e6, Unit: "ms"}, board.Value{V: float64(cpu) / 1e6, Unit: "cpu-ms"})
		for line := range strings.Lines(rest) {
			var name string
			var insns float64
			if _, err := fmt.Sscan(line, &name, &insns); err != nil {
				return fmt.Errorf("%q: %w", out, err)
			}
			r.Add("Verify/program="+name, 1, board.Value{V: insns, Unit: "insns"})
		}
	}
	return nil
}
