package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// phases of the goroutines of the program shares, and where they are in a profile.
var phases = []struct {
	name  string
	where []string
}{
	{"receive", []string{"main.(*worker).receive"}}, {"lock", []string{"main.(*worker).lock"}},
	{"compute", []string{"main.(*worker).compute", "[runs without a CPU]"}},
}

// shares compares profiles with what the program says of itself.
func (b *bench) shares(ctx context.Context, n int) error {
	t, err := start("shares", "-idle", strconv.Itoa(n))
	if err != nil {
		return err
	}
	defer t.stop()
	for range b.rounds {
		for _, w := range append([]watcher{b.nobody()}, b.profilers()...) {
			values, err := t.compare(ctx, &w)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			b.report.Add(fmt.Sprintf("WallShares/idle=%d/by=%s", n, w.name), 1, values...)
		}
	}
	return nil
}

// compare takes one profile.
func (t *target) compare(ctx context.Context, w *watcher) ([]board.Value, error) {
	before, err := t.spent()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p, values, err := t.watched(ctx, w)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	after, err := t.spent()
	if err != nil {
		return nil, err
	}
	own := float64(after["cpu"]-before["cpu"]) / float64(took)
	for _, v := range values {
		if v.Unit == "%core-target" {
			values = append(values, board.Value{V: v.V - 100*own, Unit: "%core-extra"})
		}
	}
	if p == nil {
		return values, nil
	}
	truth, seen := make([]float64, len(phases)), make([]float64, len(phases))
	for i, phase := range phases {
		truth[i] = float64(after[phase.name] - before[phase.name])
		seen[i] = timeIn(p, phase.where)
	}
	truth, seen = percent(truth), percent(seen)
	off := 0.0
	for i, phase := range phases {
		off = max(off, math.Abs(seen[i]-truth[i]))
		values = append(values, board.Value{V: seen[i], Unit: "%" + phase.name}, board.Value{V: truth[i], Unit: "%" + phase.name + "-truth"})
	}
	return append(values, board.Value{V: off, Unit: "points-off"}), nil
}

// percent are shares of the sum.
func percent(list []float64) []float64 {
	sum := 0.0
	for _, v := range list {
		sum += v
	}
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = 100 * v / sum
	}
	return out
}

// timeIn is the time of samples that have one of the functions in their stacks.
func timeIn(p *profile.Profile, functions []string) (sum float64) {
	for _, s := range p.Sample {
		in := slices.ContainsFunc(s.Location, func(l *profile.Location) bool {
			return slices.ContainsFunc(l.Line, func(l profile.Line) bool { return slices.Contains(functions, l.Function.Name) })
		})
		if in {
			sum += float64(s.Value[len(s.Value)-1])
		}
	}
	return sum
}

// spent is how the program has spent its time until now, ns by phase.
func (t *target) spent() (map[string]int64, error) {
	t.marks++
	name := strconv.Itoa(t.marks)
	if _, err := fmt.Fprintln(t.in, name); err != nil {
		return nil, err
	}
	line, err := t.Await("mark "+name+" ", time.Minute)
	if err != nil {
		return nil, err
	}
	var m map[string]int64
	err = json.Unmarshal([]byte(strings.TrimPrefix(line, "mark "+name+" ")), &m)
	return m, err
}

// watched has w sample once, and says what CPU time it and the program took.
func (t *target) watched(ctx context.Context, w *watcher) (*profile.Profile, []board.Value, error) {
	before, err := t.cpu()
	if err != nil {
		return nil, nil, err
	}
	began := time.Now()
	p, cpu, err := w.watch(ctx, t)
	took := time.Since(began)
	after, errCPU := t.cpu()
	if err := errors.Join(err, errCPU); err != nil {
		return nil, nil, err
	}
	core := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() }
	return p, []board.Value{{V: core(cpu), Unit: "%core"}, {V: core(after - before), Unit: "%core-target"}}, nil
}

// cost measures what a program loses that is sampled.
func (b *bench) cost(ctx context.Context, n int) error {
	t, err := start("crowd", strconv.Itoa(n))
	if err != nil {
		return err
	}
	defer t.stop()
	for range b.rounds {
		for _, w := range b.profilers() {
			nobody := b.nobody()
			off, err := b.looks(ctx, t, n, &nobody, 0)
			if err != nil {
				return err
			}
			if _, err := b.looks(ctx, t, n, &w, off); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	return nil
}

// looks is how often in a second the program looks at the clock meanwhile; off is how often it does where nobody samples, 0: not known.
func (b *bench) looks(ctx context.Context, t *target, n int, w *watcher, off float64) (float64, error) {
	if _, err := t.number(ctx, "/longest"); err != nil {
		return 0, err
	}
	began := time.Now()
	before, err := t.number(ctx, "/looks")
	if err != nil {
		return 0, err
	}
	_, values, err := t.watched(ctx, w)
	if err != nil {
		return 0, err
	}
	after, err := t.number(ctx, "/looks")
	if err != nil {
		return 0, err
	}
	rate := (after - before) / time.Since(began).Seconds()
	longest, err := t.number(ctx, "/longest")
	if err != nil {
		return 0, err
	}
	values = append([]board.Value{{V: rate, Unit: "looks/s"}, {V: longest / 1e6, Unit: "ms-held-up"}}, values...)
	if off > 0 {
		values = append(values, board.Value{V: rate / off, Unit: "on/off"})
	}
	b.report.Add(fmt.Sprintf("WallCost/idle=%d/by=%s", n, w.name), 1, values...)
	return rate, nil
}
