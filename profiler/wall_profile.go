package profiler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/goruntime"
)

// Frames of goroutines whose stack is not known.
const (
	movedFrame  = "[went on]"            // it went on before its stack was read
	noCPUFrame  = "[runs without a CPU]" // the runtime let it run, and the kernel did not
	tooManyWall = "too many distinct stacks"
)

// Labels of the samples of a wall profile, and of goroutine profiles.
const (
	stateLabel  = "state"
	reasonLabel = "reason"
)

// CPU returns an exporter that keeps CPU profiles for Export, and hands them on to next, where that is not nil.
func (w *Wall) CPU(next export.Exporter) export.Exporter { return &wallCPU{w, next} }

type wallCPU struct {
	w    *Wall
	next export.Exporter
}

// Export implements export.Exporter.
func (c *wallCPU) Export(ctx context.Context, p *export.Profile) error {
	if p.Kind == KindCPU && c.w.Running() {
		c.w.cpu = append(c.w.cpu, p)
	}
	if c.next == nil {
		return nil
	}
	return c.next.Export(ctx, p)
}

// Close implements export.Exporter; next stays open.
func (c *wallCPU) Close() error { return nil }

// Export makes the profiles of what Run has seen, and hands them on.
func (w *Wall) Export(ctx context.Context) error {
	if w.stalled.Load() {
		return nil
	}
	var errs []error
	for _, kind := range []string{KindWall, KindBlock, KindMutex} {
		all, err := w.profiles(kind)
		errs = append(errs, err)
		for _, p := range all {
			errs = append(errs, w.cfg.Exporter.Export(ctx, p))
		}
	}
	return errors.Join(errs...)
}

// profiles of a kind.
func (w *Wall) profiles(kind string) (all []*export.Profile, err error) {
	var errs []error
	for _, t := range w.targets {
		if !slices.Contains(t.kinds, kind) {
			continue
		}
		t.cpu = w.cpu
		build := t.profile
		if kind != KindWall {
			build = func() (*export.Profile, error) { return t.estimate(kind) }
		}
		p, err := build()
		if err != nil {
			errs = append(errs, fmt.Errorf("process %d (%s): %s profile: %w", t.g.pid, t.g.comm, kind, err))
			continue
		}
		all = append(all, p)
	}
	if w.cfg.Merge && len(all) > 0 {
		merged, err := w.merge(kind, all)
		return []*export.Profile{merged}, errors.Join(append(errs, err)...)
	}
	return all, errors.Join(errs...)
}

// merge makes one profile of all, with the CPU profiles that are of several processes.
func (w *Wall) merge(kind string, all []*export.Profile) (*export.Profile, error) {
	var parts []*profile.Profile
	for _, p := range all {
		parts = append(parts, p.Data)
	}
	for _, p := range w.cpu {
		if p.PID == 0 && kind == KindWall {
			parts = append(parts, asWall(p.Data))
		}
	}
	out := &export.Profile{Kind: kind, Start: all[0].Start, Duration: all[0].Duration}
	var err error
	out.Data, err = mergeWall(parts, out.Duration)
	return out, err
}

// mergeWall merges parts that are of the same time.
func mergeWall(parts []*profile.Profile, d time.Duration) (*profile.Profile, error) {
	if len(parts) == 1 {
		return parts[0], nil
	}
	p, err := profile.Merge(parts)
	if err != nil {
		return nil, fmt.Errorf("merge wall profiles: %w", err)
	}
	p.DurationNanos = d.Nanoseconds()
	return p, nil
}

// asWall is a CPU profile as a part of a wall profile, to be merged with others: it shares functions and the like with the CPU profile.
func asWall(cpu *profile.Profile) *profile.Profile {
	types := wallTypes()
	p := &profile.Profile{
		SampleType: []*profile.ValueType{&types[0], &types[1]}, PeriodType: &profile.ValueType{Type: KindWall, Unit: "nanoseconds"}, Period: cpu.Period,
		TimeNanos: cpu.TimeNanos, DurationNanos: cpu.DurationNanos, Mapping: cpu.Mapping, Location: cpu.Location, Function: cpu.Function,
		DropFrames: cpu.DropFrames, KeepFrames: cpu.KeepFrames,
	}
	for _, s := range cpu.Sample {
		labels := make(map[string][]string, len(s.Label)+1)
		maps.Copy(labels, s.Label)
		labels[stateLabel] = []string{goruntime.Running.String()}
		p.Sample = append(p.Sample, &profile.Sample{Location: s.Location, Value: s.Value, Label: labels, NumLabel: s.NumLabel, NumUnit: s.NumUnit})
	}
	for _, c := range cpu.Comments {
		if _, _, ok := export.ParseSamplesComment(c); !ok {
			p.Comments = append(p.Comments, c)
		}
	}
	return p
}

func wallTypes() []profile.ValueType {
	return []profile.ValueType{{Type: "samples", Unit: "count"}, {Type: KindWall, Unit: "nanoseconds"}}
}

// profile of a target, with its part of the CPU profiles.
func (t *wallTarget) profile() (*export.Profile, error) {
	out := t.blank(KindWall)
	used := t.usedCPU()
	idle := t.running() - used
	parts := make([]*profile.Profile, 0, len(t.programs)+1)
	for _, p := range slices.Backward(t.programs) {
		s := aggregate.NewSnapshot(p.g.images.Get, p.g.sym, t.options(p, out))
		p.groups.addTo(s, t.w.wants)
		if idle > 0 && t.w.Running() && p == t.wallProgram {
			s.AddCalls(&aggregate.Calls{Leaf: t.idleFrame(), Labels: stateLabels(goruntime.Running, "")}, 0, idle.Nanoseconds())
		}
		parts = append(parts, s.Profile())
	}
	for _, p := range t.cpu {
		if p.PID == int(t.g.pid) {
			parts = append(parts, asWall(p.Data))
		}
	}
	parts[0].Comments = append(parts[0].Comments, t.comments(used)...)
	var err error
	out.Data, err = mergeWall(parts, out.Duration)
	return out, err
}

// idleFrame stands for what ran and is not in the CPU profile.
func (t *wallTarget) idleFrame() string {
	if t.blind {
		return runningFrame
	}
	return noCPUFrame
}

// addTo adds a sample for each group that is wanted.
func (s *wallGroups) addTo(p *aggregate.Snapshot, wants func(goruntime.State, string) bool) {
	for _, g := range s.sorted() {
		if !wants(g.State, g.Reason) {
			continue
		}
		p.AddCalls(g.calls(), g.count, g.weight.Nanoseconds())
	}
	if s.lost.count > 0 {
		p.AddCalls(&aggregate.Calls{Leaf: aggregate.LostFrame, Labels: []aggregate.Label{{Key: "lost", Value: tooManyWall}}}, s.lost.count, s.lost.weight.Nanoseconds())
	}
}

// blank is a profile of t without data.
func (t *wallTarget) blank(kind string) *export.Profile {
	return &export.Profile{
		Kind: kind, PID: int(t.g.pid), StartTicks: t.g.start, Comm: t.g.comm, Start: t.began, Duration: t.ended.Sub(t.began),
	}
}

func (t *wallTarget) options(p *wallProgram, out *export.Profile) aggregate.SnapshotOptions {
	o := aggregate.SnapshotOptions{
		Types: wallTypes(), PeriodType: profile.ValueType{Type: KindWall, Unit: "nanoseconds"},
		Period: t.period(), Start: out.Start, Duration: out.Duration, Main: p.g.space.Main().Image.ID,
	}
	if t.w.cfg.Merge {
		o.Labels = []aggregate.Label{{Key: "comm", Value: t.g.comm}, {Key: "pid", Value: fmt.Sprint(t.g.pid)}}
	}
	return o
}

// period is for how long a goroutine in a snapshot stands.
func (t *wallTarget) period() int64 {
	if t.w.shared == nil {
		return int64(float64(time.Second) / t.w.cfg.Frequency)
	}
	return int64(t.ended.Sub(t.began)) / int64(max(t.snapshots, 1))
}

func stateLabels(s goruntime.State, reason string) []aggregate.Label {
	return []aggregate.Label{{Key: stateLabel, Value: s.String()}, {Key: reasonLabel, Value: reason}}
}

func (g *wallGroup) calls() *aggregate.Calls {
	c := &aggregate.Calls{Leaf: g.Leaf, Stack: g.Stack, Labels: stateLabels(g.State, g.Reason)}
	for _, l := range g.Labels {
		c.Labels = append(c.Labels, aggregate.Label(l))
	}
	if !g.Complete && g.Leaf == "" {
		c.Status = aggregate.Truncated
	}
	return c
}

// usedCPU is the CPU time of t's goroutines, without those of the runtime.
func (t *wallTarget) usedCPU() (used time.Duration) {
	pid := fmt.Sprint(t.g.pid)
	for _, p := range t.cpu {
		if p.PID != 0 && p.PID != int(t.g.pid) {
			continue
		}
		for _, s := range p.Data.Sample {
			if ofPID := s.Label["pid"]; p.PID == 0 && !slices.Contains(ofPID, pid) {
				continue
			}
			if userStart(rootOf(s)) {
				used += time.Duration(s.Value[len(s.Value)-1])
			}
		}
	}
	return used
}

// rootOf is the name of the first function of a sample.
func rootOf(s *profile.Sample) string {
	if len(s.Location) == 0 {
		return ""
	}
	lines := s.Location[len(s.Location)-1].Line
	if len(lines) == 0 || lines[len(lines)-1].Function == nil {
		return ""
	}
	return lines[len(lines)-1].Function.Name
}

// running is for how long goroutines ran, or were in a system call and waited for nothing.
func (t *wallTarget) running() (sum time.Duration) {
	for _, p := range t.programs {
		sum += p.running.weight
	}
	return sum
}

// deviation is that of running, by chance.
func (t *wallTarget) deviation() time.Duration {
	n := float64(t.snapshots)
	if n < 2 {
		return t.ended.Sub(t.began)
	}
	variance := (t.squares - t.ran*t.ran/n) / (n - 1)
	return time.Duration(math.Sqrt(max(0, variance)/n) * float64(t.ended.Sub(t.began)))
}

// comments say where the profile comes from, and how sure it is.
func (t *wallTarget) comments(used time.Duration) []string {
	n := max(t.snapshots, 1)
	d := t.ended.Sub(t.began)
	lines := []string{"pprofd " + t.w.cfg.Version, fmt.Sprintf("goroutines that do not run: %d snapshots at random moments, %.3g a second, of %d goroutines on average, each for %v of CPU time",
		t.snapshots, float64(t.snapshots)/max(d.Seconds(), 1e-9), t.sum/n, (t.spent / time.Duration(n)).Round(time.Microsecond))}
	switch {
	case !t.w.Running():
		return lines
	case t.blind:
		return append(lines, fmt.Sprintf("goroutines that run: there is no CPU profile of the same time; in snapshots they ran for %v ± %v, which is the frame %s",
			t.running().Round(time.Millisecond), t.deviation().Round(time.Millisecond), runningFrame))
	}
	return append(lines, fmt.Sprintf("goroutines that run: CPU profile, %v; in snapshots they ran for %v ± %v; what is more is the frame %s",
		used.Round(time.Millisecond), t.running().Round(time.Millisecond), t.deviation().Round(time.Millisecond), noCPUFrame))
}
