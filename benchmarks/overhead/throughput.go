package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// watcher is a profiler at a rate, as throughput is measured under it.
type watcher struct {
	agent string
	hz    int
	// during runs window while the profiler works, and waits for the profiler's end.
	during func(ctx context.Context, f fleet, window func() error) error
}

// watchers are all profilers with their rates; for many processes only some.
func (b *bench) watchers(processes int) (list []watcher) {
	var peers []agents.Agent
	for _, a := range agents.All() {
		if a.Name != ours {
			peers = append(peers, a)
			continue
		}
		for _, hz := range []int{19, 99, 999} {
			if hz != 19 || processes == 1 {
				list = append(list, b.external(a, hz))
			}
		}
	}
	if b.peer != "" {
		peers = append(peers, agents.Peer(b.peer))
	}
	for _, a := range peers {
		list = append(list, b.external(a, 99))
	}
	return append(list, b.internal(99))
}

// external is an agent that runs as a process.
func (b *bench) external(a agents.Agent, hz int) watcher {
	return watcher{a.Name, hz, func(ctx context.Context, f fleet, window func() error) error {
		r, err := b.Run(ctx, a, f.sampling(hz, b.lead+b.window+b.lead/2))
		if err != nil {
			return err
		}
		time.Sleep(b.lead)
		err = window()
		if ended := r.Wait(); a.Samples != nil { // how a peer ends is its business
			err = errors.Join(err, ended)
		}
		return err
	}}
}

// internal is runtime/pprof.
func (b *bench) internal(hz int) watcher {
	return watcher{"runtime", hz, func(_ context.Context, f fleet, window func() error) error {
		begin := func(i int) string {
			return fmt.Sprintf("profile %d %s", hz, filepath.Join(b.Dir, fmt.Sprint("own-", i)))
		}
		if err := f.all(begin); err != nil {
			return err
		}
		err := window()
		return errors.Join(err, f.all(func(int) string { return "stop" }))
	}}
}

// throughput measures all watchers at all sizes.
func (b *bench) throughput(ctx context.Context) error {
	for _, n := range b.sizes {
		if b.size != 0 && n != b.size {
			continue
		}
		if err := b.throughputOf(ctx, load{n, 1, false}); err != nil {
			return fmt.Errorf("%d processes: %w", n, err)
		}
	}
	return nil
}

func (b *bench) throughputOf(ctx context.Context, l load) error {
	f, err := b.startFleet(l)
	if err != nil {
		return err
	}
	defer f.stop()
	before, err := f.rate(b.window)
	if err != nil {
		return err
	}
	for range b.pairs {
		for _, w := range b.watchers(l.processes) {
			var on float64
			err := w.during(ctx, f, func() (err error) {
				on, err = f.rate(b.window)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s at %d Hz: %w", w.agent, w.hz, err)
			}
			after, err := f.rate(b.window)
			if err != nil {
				return err
			}
			b.report.Add(throughputName(l.processes, w.agent, w.hz), 1, board.Value{V: 2 * on / (before + after), Unit: "on/off"},
				board.Value{V: on, Unit: "requests/s"})
			before = after
		}
	}
	return nil
}

func throughputName(processes int, agent string, hz int) string {
	return fmt.Sprintf("Throughput/processes=%d/hz=%d/agent=%s", processes, hz, agent)
}
