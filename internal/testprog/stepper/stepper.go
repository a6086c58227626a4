//go:build linux && (amd64 || arm64)

// Package stepper single-steps a Go program and knows its true call stack at every instruction.
//
// The truth does not come from unwinding: a shadow stack is kept from the instructions that were executed.
//
//  1. Run starts the program under ptrace and lets it run to the entry of a marker function.
//  2. All other threads are stopped for good, so that nothing but the traced thread moves the program: no
//     sysmon, no preemption, no handing off of P during the slow steps.
//  3. There the stack is taken once, from frame pointers, which are exact at a function's entry when all functions
//     above have frames.
//  4. Then, per instruction: a CALL pushes (address of the slot, return address); whatever moves SP above a slot
//     drops it; SP leaving its stack is a switch, see shadow. On arm64, where a call leaves SP alone, the slot stands for
//     the caller's SP, and a branch to the return address with that SP drops it, too.
//  5. Before each instruction a callback sees registers, memory and the true stack.
package stepper

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Options may be nil.
type Options struct {
	Args     []string // of the program
	Env      []string // added to the environment
	MaxSteps int      // end after so many steps; 0: run to the end marker
	Begin    string   // symbol; default main.markBegin
	End      string   // symbol; default main.markEnd
}

// Stats say what a run saw.
type Stats struct {
	Steps    int // instructions executed between the markers
	Unknown  int // of them, on stacks that began before the first marker: not reported to the callback
	Switches int // of stacks
	Elapsed  time.Duration
}

// Rate is in steps per second.
func (s Stats) Rate() float64 { return float64(s.Steps) / s.Elapsed.Seconds() }

// Step is the state before one instruction. It is valid during the callback only.
type Step struct {
	N    int
	Regs *Regs

	proc   *process
	shadow *shadow
	buf    []uint64
}

// Stack returns the return addresses of the true stack, innermost first. It ends at the first function of
// the goroutine or thread: its last element lies in runtime.goexit, or at the place where a system stack was
// entered (see Joined). At the entry of a goroutine's runtime.goexit itself it is empty.
func (s *Step) Stack() []uint64 {
	s.buf = s.shadow.append(s.buf[:0])
	return s.buf
}

// Joined returns how many elements of Stack lie on the current stack; the rest lie on the goroutine's stack that
// was left for it by systemstack, mcall, morestack, or for the vDSO. All of them, when no stack was left.
func (s *Step) Joined() int { return s.shadow.joined() }

// Caller is the innermost return address and the stack slot that holds it; ok is false when there is none.
func (s *Step) Caller() (ra, slot uint64, ok bool) { return s.shadow.caller() }

// ReadAt reads the program's memory at an address.
func (s *Step) ReadAt(b []byte, addr int64) (int, error) { return s.proc.ReadAt(b, addr) }

// PID is the program's process.
func (s *Step) PID() int { return s.proc.pid }

// Run starts the program at path and calls f before each instruction that its traced thread executes between the
// markers. It stops with f's first error. The program must be a plain executable with symbols (no PIE).
func Run(ctx context.Context, path string, o *Options, f func(*Step) error) (Stats, error) {
	if o == nil {
		o = &Options{}
	}
	funcs, err := functions(path)
	if err != nil {
		return Stats{}, err
	}
	marks, err := starts(funcs, or(o.Begin, "main.markBegin"), or(o.End, "main.markEnd"))
	if err != nil {
		return Stats{}, fmt.Errorf("%s: %w", path, err)
	}
	runtime.LockOSThread() // ptrace belongs to a thread
	defer runtime.UnlockOSThread()
	defer pin()()
	p, err := start(path, o)
	if err != nil {
		return Stats{}, fmt.Errorf("step %s: %w", path, err)
	}
	defer p.kill()
	stop := context.AfterFunc(ctx, func() { unix.Kill(p.pid, unix.SIGKILL) })
	defer stop()
	if err := p.runTo(marks[0]); err != nil {
		return Stats{}, fmt.Errorf("step %s: run to the marker: %w", path, errors.Join(err, ctx.Err()))
	}
	if err := p.freeze(); err != nil {
		return Stats{}, fmt.Errorf("step %s: stop the other threads: %w", path, err)
	}
	sh := newShadow(p, funcs)
	stats, err := loop(p, sh, marks[1], o.MaxSteps, f)
	return stats, errors.Join(err, ctx.Err())
}

func or(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	return s
}

// loop executes instruction after instruction up to the end marker.
func loop(p *process, sh *shadow, end uint64, limit int, f func(*Step) error) (stats Stats, err error) {
	began := time.Now()
	defer func() { stats.Elapsed, stats.Switches = time.Since(began), sh.switches }()
	dec := newDecoder(p)
	step := &Step{Regs: &Regs{}, proc: p, shadow: sh}
	if err := p.regs(step.Regs); err != nil {
		return stats, err
	}
	if err := sh.begin(step.Regs); err != nil {
		return stats, err
	}
	for step.Regs.PC != end && (limit == 0 || stats.Steps < limit) {
		step.N = stats.Steps
		if !sh.known() {
			stats.Unknown++
		} else if err := f(step); err != nil {
			return stats, err
		}
		before, in := *step.Regs, dec.at(step.Regs.PC)
		err := p.execute(in, step.Regs)
		if err == nil {
			err = sh.after(in, &before, step.Regs)
		}
		if err != nil {
			return stats, fmt.Errorf("after %d steps, at %#x: %w", stats.Steps, before.PC, err)
		}
		stats.Steps++
	}
	return stats, nil
}

// functions are an executable's, by address.
func functions(path string) ([]span, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC {
		return nil, fmt.Errorf("%s: not a plain executable but %v: build it without PIE", path, f.Type)
	}
	all, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: build it without -s", path, err)
	}
	var funcs []span
	for _, sym := range all {
		if elf.ST_TYPE(sym.Info) == elf.STT_FUNC {
			funcs = append(funcs, span{sym.Name, sym.Value, sym.Value + sym.Size})
		}
	}
	slices.SortFunc(funcs, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	return funcs, nil
}

// starts are the entries of functions.
func starts(funcs []span, names ...string) ([]uint64, error) {
	var found []uint64
	for _, name := range names {
		i := slices.IndexFunc(funcs, func(f span) bool { return f.name == name || f.name == name+".abi0" })
		if i < 0 {
			return nil, fmt.Errorf("no symbol %s: %w", name, os.ErrNotExist)
		}
		found = append(found, funcs[i].start)
	}
	return found, nil
}
