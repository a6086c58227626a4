//go:build linux && (amd64 || arm64)

package unwind_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/gopclntab"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/internal/testprog/stepper"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// TestEveryInstruction single-steps a program through all kinds of code and compares the completed stack with the true
// one at every instruction. Functions that switch stacks are exempt at the instructions where SP deltas do not hold.
// What it finds goes into the table of make single-step, by t.Attr.
func TestEveryInstruction(t *testing.T) {
	needs.Root(t)
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			path := testprog.Build(t, "step", testprog.Options{Go: version})
			j := &judge{t: t, wrong: map[string]int{}, exempt: map[string]int{}, executed: map[string]int{}, reasons: map[string]string{}}
			for _, o := range runs() {
				j.space = nil
				if _, err := stepper.Run(t.Context(), path, &o, j.step); err != nil {
					t.Fatalf("from %s: %v", o.Begin, err)
				}
			}
			j.report(runtime.GOARCH == "amd64" || full(), goal(version))
		})
	}
}

func full() bool { return os.Getenv("PPROFD_FULL") != "" }

// goal is the share of instructions whose stack must be right.
func goal(version string) float64 {
	switch {
	case arm64:
		return 0.995
	case version == "" || version == "1.27.4":
		return 1
	case strings.HasPrefix(version, "1.18") || strings.HasPrefix(version, "1.19") || strings.HasPrefix(version, "1.20"):
		return 0.97
	}
	return 0.995
}

// parts are the functions of the program that are run on their own where an instruction takes long, each for so many
// instructions: on arm64, in an emulated machine.
var parts = map[string]int{
	"leaves": 1500, "frames": 1500, "memory": 2500, "tables": 1500, "closures": 1500, "panics": 5000, "goroutines": 5000, "channels": 4000,
	"deepStack": 9000, "clocks": 1500, "calls": 500, "hashing": 1000, "sorting": 1000, "formatting": 1500, "allocating": 2000, "runtimeCalls": 3000,
}

// runs are the ways to run the program, which together go through all of it.
func runs() []stepper.Options {
	if !arm64 || full() {
		return []stepper.Options{{}}
	}
	var all []stepper.Options
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		all = append(all, stepper.Options{Begin: "main." + name, MaxSteps: parts[name]})
	}
	return all
}

// judge compares stacks step by step.
type judge struct {
	t        *testing.T
	space    *objfile.Space
	table    *gopclntab.Table
	sim      simulator
	unwinder *unwind.Unwinder
	input    unwind.Input
	got      []objfile.Addr
	want     []uint64

	names                   map[uint64]string // of functions by program counter: looking all up at each step would take too long
	all, bad, exempted      int
	wrong, exempt, executed map[string]int // instructions by function
	reasons                 map[string]string
}

// report logs the shares, and fails if too few are right.
func (j *judge) report(whole bool, goal float64) {
	j.t.Helper()
	exact := 1 - float64(j.bad)/float64(j.all)
	j.t.Logf("%d instructions (%d in stack switches besides), %.4f %% exact", j.all, j.exempted, 100*exact)
	j.t.Attr("pprofd.exact", fmt.Sprintf("%.4f %% of %d instructions in %d functions; besides %d in functions that switch stacks", 100*exact, j.all, len(j.executed), j.exempted))
	for _, counts := range []map[string]int{j.wrong, j.exempt} {
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			j.t.Attr("pprofd.wrong", fmt.Sprintf("%s: %d of %d: %s", name, counts[name], j.executed[name], j.reasons[name]))
		}
	}
	least := 20_000
	if whole {
		least = 100_000
	}
	if exact < goal || j.all < least {
		j.t.Errorf("%d of %d stacks are wrong; at least %.1f %% must be right, of %d", j.bad, j.all, 100*goal, least)
	}
}

// exceptions say why stacks in the functions that switch them are wrong at some instructions.
var exceptions = []struct {
	name *regexp.Regexp
	why  string
}{
	{regexp.MustCompile(`^(runtime\.)?gogo$`), "a stack ends there, since the goroutine changes inside"},
	{regexp.MustCompile(`^runtime\.(nanotime1|walltime|vgetrandom1)$|^time\.now$`), "calls the vDSO on the g0 stack: SP deltas are those of the goroutine's"},
	{regexp.MustCompile(`^runtime\.(morestack_noctxt|save_g)$`), "arm64: morestack is told in R3 where to return to, gogo no longer knows when it calls save_g"},
	{regexp.MustCompile(`^runtime\.adjust(ctxt|pointer)$`), "arm64: the frame pointer of the stack that moves is its new one, what it points to is not yet there"},
	{regexp.MustCompile(`^runtime\.(mcall|systemstack|asmcgocall|morestack|switchToCrashStack0)$`), "switches stacks (SPWRITE): SP deltas do not hold behind that"},
}

// windowBytes of stack come with a segment (WINDOW_BYTES of bpf/sample.h).
const windowBytes = 512

// why is the reason for a wrong stack at pc, if it is a known one.
func (j *judge) why(name string, pc uint64) string {
	f, _ := j.table.Find(pc)
	if delta, ok := f.SPDelta(pc); ok && delta >= windowBytes {
		return "frame of 512 B and more, its frame pointer not yet set: the return address is beyond the window"
	}
	for _, e := range exceptions {
		if e.name.MatchString(name) {
			return e.why
		}
	}
	return "no reason known"
}

// switching are the functions with instructions at which SP deltas do not hold (facts: their SPWRITE flag).
var switching = []string{"runtime.gogo", "gogo", "runtime.rt0_go", "runtime.mcall", "runtime.systemstack", "runtime.switchToCrashStack0",
	"runtime.morestack", "runtime.asmcgocall", "runtime.nanotime1", "time.now", "runtime.walltime", "runtime.callCgoSigaction",
	"runtime.sigfwd", "runtime.callCgoMmap", "runtime.callCgoMunmap", "runtime.clone", "runtime.vgetrandom1"}

// maxExplained is in how many functions the first wrong stack is shown.
const maxExplained = 12

func (j *judge) open(s *stepper.Step) error {
	images := objfile.NewImages()
	space, err := objfile.OpenSpace(images, "/proc", s.PID())
	if err != nil {
		return err
	}
	j.t.Cleanup(func() {
		if err := space.Close(); err != nil {
			j.t.Error(err)
		}
	})
	j.space, j.unwinder = space, unwind.New(images)
	j.names = map[uint64]string{}
	f := space.Main().Image.File
	if j.table, err = f.Pclntab(); err != nil {
		return err
	}
	info, err := f.BuildInfo()
	if err != nil {
		return err
	}
	if j.sim.layout, err = goruntime.Find(f, info.GoVersion); err != nil {
		return err
	}
	m, err := f.GoModule()
	j.sim.text, j.sim.end = m.Text, m.EText
	return err
}

func (j *judge) step(s *stepper.Step) error {
	if j.space == nil {
		if err := j.open(s); err != nil {
			return err
		}
	}
	j.sim.read = s.ReadAt
	j.input.Segments = j.sim.walk(s.Regs)
	var status unwind.Status
	j.got, status = j.unwinder.Complete(j.got[:0], j.space, &j.input)
	right := j.equal(s) && status == unwind.Complete
	name := j.name(s.Regs.PC)
	j.executed[name]++
	if !right {
		j.reasons[name] = j.why(name, s.Regs.PC)
	}
	if slices.Contains(switching, name) {
		j.exempted++
		if !right {
			j.exempt[name]++
		}
		return nil
	}
	j.all++
	if !right {
		j.bad++
		if j.wrong[name]++; j.wrong[name] == 1 && len(j.wrong) < maxExplained {
			j.explain(s, status)
		}
	}
	return nil
}

// equal compares the stack that was completed with the true one, as the runtime shows it: without morestack and goexit,
// cut at mcall, behind which the goroutine is no longer the one that runs, and for the same reason at morestack, if
// the goroutine has been descheduled there.
func (j *judge) equal(s *stepper.Step) bool {
	j.want = append(j.want[:0], s.Regs.PC)
	if j.name(s.Regs.PC) == "runtime.goexit" {
		j.want = j.want[:0]
	}
	left := j.sim.curg == 0 || j.name(s.Regs.PC) == "runtime.schedule"
	for _, ra := range s.Stack() {
		name := j.name(ra)
		grows := strings.HasPrefix(name, "runtime.morestack")
		if name == "runtime.goexit" || grows && !left {
			continue
		}
		left = left || name == "runtime.schedule"
		j.want = append(j.want, ra-1)
		if name == "runtime.mcall" || grows {
			break
		}
	}
	return slices.EqualFunc(j.got, j.want, func(a objfile.Addr, pc uint64) bool {
		want, ok := j.space.Resolve(pc)
		return ok && a == want
	})
}

func (j *judge) entry(pc uint64) uint64 {
	f, _ := j.table.Find(pc)
	return f.Entry
}

func (j *judge) name(pc uint64) string {
	name, ok := j.names[pc]
	if !ok {
		name = "outside"
		if f, ok := j.table.Find(pc); ok {
			name = f.Name()
		}
		j.names[pc] = name
	}
	return name
}

func (j *judge) explain(s *stepper.Step, status unwind.Status) {
	var got, want, segments []string
	for _, a := range j.got {
		got = append(got, j.name(a.Off))
	}
	for _, pc := range j.want {
		want = append(want, j.name(pc))
	}
	for _, seg := range j.input.Segments {
		text := fmt.Sprintf("kind %d stack %d end %d pc %s sp %#x fp %#x:", seg.Kind, seg.Stack, seg.End, j.name(seg.PC), seg.SP, seg.FP)
		for _, ra := range seg.Frames {
			text += " " + j.name(ra)
		}
		segments = append(segments, text)
	}
	j.t.Logf("at %s+%#x, status %d:\n got  %s\n want %s\n from %s", j.name(s.Regs.PC), s.Regs.PC-j.entry(s.Regs.PC), status,
		strings.Join(got, " < "), strings.Join(want, " < "), strings.Join(segments, "\n      "))
}
