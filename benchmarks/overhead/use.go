package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// use is what an agent uses up in one run.
type use struct {
	cpu              time.Duration // from start to end, children included
	start, steady    int64         // RSS, bytes: after a tenth of the time, and in the second half (median)
	peak, maps       int64         // RSS; BPF maps
	first            time.Duration // from exec to the first sample; 0: not known
	bpf              time.Duration // of its program
	samples          int
	stacks, profiles int
	written          int64 // bytes of the profiles
}

// ours is the name of the agent that this is about.
const ours = "pprofd"

// maxRing bounds the processes of which ring measures samples: there is no more CPU time for it beside hundreds, and no news.
const maxRing = 10

const usePoll = 10 * time.Millisecond

// loads are the rows for pprofd at 99 Hz; the first is the one with goals.
func (b *bench) loads() (list []load) {
	for _, n := range b.sizes {
		list = append(list, load{n, 1, false}, load{n, 1, true})
		if n > 1 {
			list = append(list, load{n, n, false})
		}
	}
	return list
}

// uses measures all agents on all loads.
func (b *bench) uses(ctx context.Context) error {
	for _, l := range b.loads() {
		if b.size != 0 && l.processes != b.size {
			continue
		}
		if err := b.usesOn(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
	}
	return nil
}

func (b *bench) usesOn(ctx context.Context, l load) error {
	f, err := b.startFleet(l)
	if err != nil {
		return err
	}
	defer f.stop()
	for _, a := range b.agentsOn(l) {
		for _, hz := range b.ratesOn(l, a) {
			d := b.use
			if a.Name == ours && l.processes == 1 && !l.idle && hz == 99 {
				d = b.goal
			}
			u, err := b.useOf(ctx, a, f.sampling(hz, d))
			if err != nil {
				return fmt.Errorf("%s at %d Hz: %w", a.Name, hz, err)
			}
			b.addUse(l, a, hz, d, &u)
		}
	}
	if l.idle || l.processes > maxRing {
		return nil
	}
	return b.ring(ctx, l, f)
}

// agentsOn are all agents, and pprofd alone where others would take too long or show nothing else.
func (b *bench) agentsOn(l load) []agents.Agent {
	all := agents.All()
	if l.binaries > 1 || l.idle {
		return slices.DeleteFunc(all, func(a agents.Agent) bool { return a.Name != ours })
	}
	if b.peer != "" {
		all = append(all, agents.Peer(b.peer))
	}
	return all
}

func (b *bench) ratesOn(l load, a agents.Agent) []int {
	if l.processes == 1 && !l.idle && a.Name == ours {
		return []int{99, 19, 999}
	}
	return []int{99}
}

func useName(l load, agent string, hz int) string {
	return fmt.Sprintf("Use/%s/hz=%d/agent=%s", l, hz, agent)
}

func (b *bench) addUse(l load, a agents.Agent, hz int, d time.Duration, u *use) {
	values := []board.Value{
		{V: u.cpu.Seconds(), Unit: "cpu-s"}, {V: d.Seconds(), Unit: "run-s"}, {V: float64(u.start), Unit: "start-RSS-B"}, {V: float64(u.steady), Unit: "steady-RSS-B"},
		{V: float64(u.peak), Unit: "peak-RSS-B"}, {V: float64(u.maps), Unit: "BPF-maps-B"}, {V: float64(u.samples), Unit: "samples"},
	}
	if u.samples > 0 {
		values = append(values, board.Value{V: float64(u.cpu.Nanoseconds()) / float64(u.samples), Unit: "agent-ns/sample"})
	}
	if u.bpf > 0 && u.samples > 0 {
		values = append(values, board.Value{V: float64(u.bpf.Nanoseconds()) / float64(u.samples), Unit: "BPF-ns/sample"})
	}
	if u.first > 0 {
		values = append(values, board.Value{V: float64(u.first.Microseconds()) / 1000, Unit: "first-sample-ms"})
	}
	if u.profiles > 0 {
		values = append(values, board.Value{V: float64(u.written) / float64(u.profiles), Unit: "disk-B/profile"})
	}
	if u.stacks > 0 {
		values = append(values, board.Value{V: float64(u.written) / float64(u.stacks), Unit: "disk-B/stack"})
	}
	b.report.Add(useName(l, a.Name, hz), 1, values...)
}

// useOf runs an agent and follows it.
func (b *bench) useOf(ctx context.Context, a agents.Agent, o agents.Sampling) (u use, err error) {
	run, err := b.Run(ctx, a, o)
	if err != nil {
		return u, err
	}
	prog, err := b.firstSample(run, a, o, &u)
	if err != nil {
		return u, errors.Join(err, run.Wait())
	}
	err = u.watch(run, o.D)
	if ended := run.Wait(); a.Samples != nil { // how a peer ends is its business
		err = errors.Join(err, ended)
	}
	if prog != nil {
		stats, errStats := prog.Stats()
		if errStats == nil {
			u.bpf = stats.Runtime
		}
		err = errors.Join(err, errStats, prog.Close())
	}
	if err != nil {
		return u, err
	}
	u.cpu = run.Cmd.ProcessState.UserTime() + run.Cmd.ProcessState.SystemTime()
	return u, b.profiled(ctx, a, run, &u)
}

// firstSample waits for the first run of the agent's program, if it has one.
func (b *bench) firstSample(run *agents.Run, a agents.Agent, o agents.Sampling, u *use) (*ebpf.Program, error) {
	if a.Program == nil {
		return nil, nil
	}
	prog, err := agents.AwaitProgram(run, a.Program(o))
	if err != nil {
		return nil, err
	}
	for {
		s, err := prog.Stats()
		if err != nil {
			return nil, errors.Join(err, prog.Close())
		}
		if s.RunCount > 0 {
			now, err := agents.Monotonic()
			u.first = now - run.Started
			return prog, err
		}
		select {
		case <-run.Done:
			return prog, nil
		case <-time.After(agents.ProgramPoll):
		}
	}
}

// watch follows an agent's memory until it ends.
func (u *use) watch(run *agents.Run, d time.Duration) error {
	var late []int64
	pid := run.Cmd.Process.Pid
	for began := time.Now(); ; {
		select {
		case <-run.Done:
			if len(late) > 0 {
				slices.Sort(late)
				u.steady = late[len(late)/2]
			}
			return nil
		case <-time.After(usePoll):
		}
		rss, peak, err := agents.Memory(pid)
		if err != nil || rss == 0 { // it is about to be reaped
			continue
		}
		u.peak = max(u.peak, peak)
		switch passed := time.Since(began); {
		case u.start == 0 && passed > d/10:
			u.start = rss
			u.maps, err = agents.MapBytes(pid)
		case passed > d/2 && passed < d:
			late = append(late, rss)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}

// profiled takes what the agent has left.
func (b *bench) profiled(ctx context.Context, a agents.Agent, run *agents.Run, u *use) (err error) {
	switch {
	case a.Samples == nil:
		return nil
	case a.Name == ours:
		p, err := b.Profiled()
		u.samples, u.stacks, u.profiles, u.written = p.Samples, p.Stacks, p.Profiles, p.Bytes
		return err
	}
	if u.samples, err = a.Samples(ctx, b.Harness, run.Output.Bytes()); err != nil { // without one it says so by an error
		b.report.Printf("# note: %s: %v\n", a.Name, err)
	}
	return nil
}
