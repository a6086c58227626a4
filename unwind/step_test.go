//go:build linux && amd64

package unwind_test

import (
	"fmt"
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
func TestEveryInstruction(t *testing.T) {
	needs.Root(t)
	goals := map[string]float64{"": 1, "1.27.4": 1, "1.18.10": 0.97, "1.19.13": 0.97, "1.20.14": 0.97}
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			goal, ok := goals[version]
			if !ok {
				goal = 0.995
			}
			j := &judge{t: t, wrong: map[string]int{}, exempt: map[string]int{}}
			stats, err := stepper.Run(t.Context(), testprog.Build(t, "step", testprog.Options{Go: version}), nil, j.step)
			if err != nil {
				t.Fatal(err)
			}
			exact := 1 - float64(j.bad)/float64(j.all)
			t.Logf("%d instructions (%d in stack switches besides), %.4f %% exact; %.0f steps/s", j.all, j.exempted, 100*exact, stats.Rate())
			t.Logf("wrong: %v", top(j.wrong))
			t.Logf("wrong in functions that switch stacks: %v", top(j.exempt))
			if exact < goal || j.all < 100_000 {
				t.Errorf("%d of %d stacks are wrong; at least %.1f %% must be right", j.bad, j.all, 100*goal)
			}
		})
	}
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

	all, bad, exempted int
	wrong, exempt      map[string]int
}

// switching are the functions with instructions at which SP deltas do not hold (facts: their SPWRITE flag).
var switching = []string{"runtime.gogo", "gogo", "runtime.rt0_go", "runtime.mcall", "runtime.systemstack", "runtime.switchToCrashStack0",
	"runtime.morestack", "runtime.asmcgocall", "runtime.nanotime1", "time.now", "runtime.walltime", "runtime.callCgoSigaction",
	"runtime.sigfwd", "runtime.callCgoMmap", "runtime.callCgoMunmap", "runtime.clone", "runtime.vgetrandom1"}

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
	name := j.name(s.Regs.Rip)
	if slices.Contains(switching, name) {
		j.exempted++
		if !right {
			j.exempt[fmt.Sprintf("%s+%#x", name, s.Regs.Rip-j.entry(s.Regs.Rip))]++
		}
		return nil
	}
	j.all++
	if !right {
		j.bad++
		if j.wrong[name]++; j.wrong[name] == 1 && len(j.wrong) < 6 {
			j.explain(s, status)
		}
	}
	return nil
}

// equal compares the stack that was completed with the true one, as the runtime shows it: without morestack and goexit,
// cut at mcall, behind which the goroutine is no longer the one that runs.
func (j *judge) equal(s *stepper.Step) bool {
	j.want = append(j.want[:0], s.Regs.Rip)
	if j.name(s.Regs.Rip) == "runtime.goexit" {
		j.want = j.want[:0]
	}
	for _, ra := range s.Stack() {
		switch j.name(ra) {
		case "runtime.goexit", "runtime.morestack", "runtime.morestack_noctxt":
			continue
		}
		j.want = append(j.want, ra-1)
		if j.name(ra) == "runtime.mcall" {
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
	if f, ok := j.table.Find(pc); ok {
		return f.Name()
	}
	return "outside"
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
	j.t.Logf("at %s+%#x, status %d:\n got  %s\n want %s\n from %s", j.name(s.Regs.Rip), s.Regs.Rip-j.entry(s.Regs.Rip), status,
		strings.Join(got, " < "), strings.Join(want, " < "), strings.Join(segments, "\n      "))
}
