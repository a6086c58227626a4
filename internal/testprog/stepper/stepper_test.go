//go:build linux && (amd64 || arm64)

package stepper

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/gopclntab"
	"github.com/pprofd/pprofd/internal/testprog"
)

// versions are stepped through; all of them with PPROFD_FULL set, which takes a minute more.
func versions() []string {
	if os.Getenv("PPROFD_FULL") == "" {
		return []string{""}
	}
	return testprog.Versions()
}

// callers are known from the source of the program: each function's only callers.
var callers = map[string][]string{
	"main.once":            {"main.run"},
	"main.run":             {"main.main"},
	"main.main":            {"runtime.main"},
	"main.small":           {"main.frames"},
	"main.zeroed":          {"main.frames"},
	"main.fill":            {"main.zeroed"},
	"main.recurse":         {"main.recurse", "main.deepStack.func1"},
	"main.recovered.func1": {"runtime.gopanic", "runtime.deferCallSave"}, // the latter up to Go 1.21
	"main.deepStack.func1": {"runtime.goexit"},
	"main.channels.func1":  {"runtime.goexit"},
	"main.big":             {"main.frames", "main.deepStack.func2"},
	"runtime.goexit1":      {"runtime.goexit", "runtime.Goexit"},
	"runtime.goexit0":      {"runtime.mcall"},
	"runtime.newstack":     {"runtime.morestack"},
	"main.square.area":     {"main.closures", "main.closures.func2", "main.(*square).area", "main.(*framed).area"},
	"main.(*framed).area":  {"main.closures", "main.closures.func2"},
	"main.total[...]":      {"main.closures"},
}

// kinds of code that the program must go through, each by functions of which one must be seen.
var kinds = map[string][]string{
	"frameless leaf":    {"main.leaf"},
	"memmove":           {"runtime.memmove"},
	"memclr":            {"runtime.memclrNoHeapPointers"},
	"memequal":          {"memeqbody"},
	"IndexByte":         {"indexbytebody"},
	"Compare":           {"cmpbody"},
	"hash of strings":   {"aeshashbody", "internal/runtime/maps.memHashAES", "internal/runtime/maps.strHashAES", "internal/runtime/maps.aesHashBody"},
	"systemstack":       {"runtime.systemstack"},
	"mcall":             {"runtime.mcall"},
	"morestack":         {"runtime.morestack"},
	"newstack":          {"runtime.newstack"},
	"gogo":              {"runtime.gogo"},
	"goexit":            {"runtime.goexit"},
	"clock":             {"time.now", "runtime.nanotime1", "time.runtimeNow"},
	"vDSO":              {"outside"},
	"system call stubs": {"syscall.Syscall", "syscall.RawSyscall", "internal/runtime/syscall.Syscall6", "runtime/internal/syscall.Syscall6", "internal/runtime/syscall/linux.Syscall6"},
	"panic":             {"runtime.gopanic", "runtime.deferCallSave"}, // the latter up to Go 1.21
	"recovery":          {"runtime.recovery"},
}

// The shadow stack agrees, at every instruction, with memory, with the source, and with the linker's table of
// SP deltas, which know nothing of each other.
func TestShadowStack(t *testing.T) {
	for _, version := range versions() {
		t.Run("go"+version, func(t *testing.T) {
			c := newChecker(t, testprog.Build(t, "step", testprog.Options{Go: version}))
			stats, err := Run(t.Context(), c.path, nil, c.check)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d steps, %d switches of stacks, %.0f steps/s; %d of %d instructions not as pcsp has it: %v",
				stats.Steps, stats.Switches, stats.Rate(), c.delta.wrong, c.delta.checked, c.delta.where)
			if stats.Steps < 100_000 || stats.Unknown != 0 || stats.Switches < 100 {
				t.Errorf("%+v: want 100,000 steps and more, all on known stacks, and 100 switches", stats)
			}
			if c.delta.checked < stats.Steps*8/10 {
				t.Errorf("only %d of %d instructions were compared with pcsp", c.delta.checked, stats.Steps)
			}
			for kind, names := range kinds {
				if !slices.ContainsFunc(names, func(name string) bool { return c.seen[name] > 0 }) {
					t.Errorf("no instruction of %s was seen", kind)
				}
			}
			for _, name := range []string{"main.fill", "main.recovered.func1", "main.recurse", "runtime.goexit0", "main.channels.func1"} {
				if c.callersSeen[name] == 0 {
					t.Errorf("no caller of %s was seen", name)
				}
			}
		})
	}
}

// checker judges every step.
type checker struct {
	t           *testing.T
	path        string
	table       *gopclntab.Table
	names       map[uint64]string // by pc
	seen        map[string]int    // instructions by function
	callersSeen map[string]int
	failures    int
	delta       struct {
		checked, wrong int
		where          map[string]int
	}
}

func newChecker(t *testing.T, path string) *checker {
	c := &checker{t: t, path: path, names: map[uint64]string{}, seen: map[string]int{}, callersSeen: map[string]int{}}
	c.delta.where = map[string]int{}
	c.table = openTable(t, path)
	return c
}

func (c *checker) check(s *Step) error {
	fn := c.name(s.Regs.PC)
	c.seen[fn]++
	stack := s.Stack()
	ra, slot, ok := s.Caller()
	if ok {
		c.checkMemory(s, ra, slot)
	}
	if len(stack) > 0 && c.name(stack[len(stack)-1]) != "runtime.goexit" {
		c.fail(s, "the stack does not end in goexit")
	}
	if !ok && fn != "runtime.goexit" {
		c.fail(s, "no caller")
	}
	c.checkDelta(s, fn, slot)
	for i, callee := 0, fn; i < len(stack); i++ {
		caller := c.name(stack[i])
		if want := callers[callee]; want != nil {
			if c.callersSeen[callee]++; !slices.Contains(want, caller) && caller != "runtime.deferreturn" {
				c.fail(s, "%s called by %s, want one of %v", callee, caller, want)
			}
		}
		callee = caller
	}
	if c.failures > 5 {
		return errors.New("too many failures")
	}
	return nil
}

// checkMemory looks for the return address where it must be: in its slot, or, on arm64, at SP or in the link register.
func (c *checker) checkMemory(s *Step, ra, slot uint64) {
	if runtime.GOARCH == "arm64" {
		f, known := c.table.Find(s.Regs.PC)
		if s.Regs.LR == ra || !known || f.Flags()&(gopclntab.FlagSPWrite|gopclntab.FlagTopFrame) != 0 {
			return
		}
		slot = s.Regs.SP
	}
	var word [8]byte
	if _, err := s.ReadAt(word[:], int64(slot)); err != nil || binary.LittleEndian.Uint64(word[:]) != ra {
		c.fail(s, "memory at slot %#x has %#x, want %#x: %v", slot, binary.LittleEndian.Uint64(word[:]), ra, err)
	}
}

// checkDelta compares the slot with the linker's: at SP + delta, outside of functions that switch SP.
func (c *checker) checkDelta(s *Step, name string, slot uint64) {
	f, ok := c.table.Find(s.Regs.PC)
	if !ok || f.Flags()&(gopclntab.FlagSPWrite|gopclntab.FlagTopFrame) != 0 {
		return
	}
	delta, ok := f.SPDelta(s.Regs.PC)
	if !ok {
		return
	}
	c.delta.checked++
	if s.Regs.SP+uint64(delta) != slot {
		c.delta.wrong++
		c.delta.where[name]++
		c.fail(s, "pcsp has the return address at SP+%d = %#x, the shadow stack at %#x", delta, s.Regs.SP+uint64(delta), slot)
	}
}

func (c *checker) fail(s *Step, format string, args ...any) {
	c.t.Helper()
	c.failures++
	c.t.Errorf("step %d in %s (%#x): "+format, append([]any{s.N, c.name(s.Regs.PC), s.Regs.PC}, args...)...)
	var names []string
	for _, ra := range s.Stack() {
		names = append(names, c.name(ra))
	}
	c.t.Logf("stack, %d on the current one: %s", s.Joined(), strings.Join(names, " < "))
}

func (c *checker) name(pc uint64) string {
	if name, ok := c.names[pc]; ok {
		return name
	}
	name := "outside"
	if f, ok := c.table.Find(pc); ok {
		name = f.Name()
	}
	c.names[pc] = name
	return name
}

func openTable(t *testing.T, path string) *gopclntab.Table {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]uint64{}
	for _, s := range syms {
		at[s.Name] = s.Value
	}
	table, err := gopclntab.Open(image{f}, gopclntab.Image{PCHeader: at["runtime.pclntab"], Text: at["runtime.text"],
		EText: at["runtime.etext"], GoFunc: max(at["go:func.*"], at["go.func.*"])})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// image reads an executable by link-time addresses.
type image struct{ f *elf.File }

func (im image) ReadAt(b []byte, addr int64) (int, error) {
	for _, seg := range im.f.Progs {
		if off := uint64(addr) - seg.Vaddr; seg.Type == elf.PT_LOAD && uint64(addr) >= seg.Vaddr && off < seg.Filesz {
			return seg.ReadAt(b, int64(off))
		}
	}
	return 0, os.ErrNotExist
}

func TestRunEnds(t *testing.T) {
	path := testprog.Build(t, "step", testprog.Options{})
	stop := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, c := range map[string]struct {
		o     *Options
		steps int
		err   error
	}{
		"after MaxSteps":         {o: &Options{MaxSteps: 500}, steps: 500},
		"with the callback":      {o: nil, steps: 1000, err: stop},
		"at an end marker":       {o: &Options{End: "main.once"}, steps: 5},
		"for want of a symbol":   {o: &Options{Begin: "main.nothing"}, err: os.ErrNotExist},
		"from another marker on": {o: &Options{Begin: "main.markEnd", End: "main.fill", Args: []string{"-rounds=0"}, MaxSteps: 20}, steps: 20},
	} {
		t.Run(name, func(t *testing.T) {
			stats, err := Run(ctx, path, c.o, func(s *Step) error {
				if s.N == 1000 {
					return stop
				}
				return nil
			})
			if !errors.Is(err, c.err) || stats.Steps < c.steps || stats.Steps > c.steps+20 {
				t.Errorf("%d steps, error %v; want %d steps, %v", stats.Steps, err, c.steps, c.err)
			}
		})
	}
	t.Run("when cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Run(ctx, path, nil, func(*Step) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want it to be the context's", err)
		}
	})
	t.Run("refusing a PIE", func(t *testing.T) {
		pie := testprog.Build(t, "step", testprog.Options{PIE: true})
		if _, err := Run(ctx, pie, nil, func(*Step) error { return nil }); err == nil {
			t.Error("no error")
		}
	})
}

// Programs are gone when Run returns, also those it gave up.
func TestRunLeavesNothing(t *testing.T) {
	path := testprog.Build(t, "step", testprog.Options{})
	before := running(t, path)
	if _, err := Run(t.Context(), path, &Options{MaxSteps: 10}, func(*Step) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if after := running(t, path); len(after) > len(before) {
		t.Errorf("processes of %s: %v, before %v", path, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
}

func running(t *testing.T, path string) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		if exe, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && exe == path {
			found[e.Name()] = true
		}
	}
	return found
}
