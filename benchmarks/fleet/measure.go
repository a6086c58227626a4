package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// measured is what is known of one situation in the end.
type measured struct {
	*situation
	sampled, profiled       time.Duration // since the agent's start
	begin, end              mark          // of the steady part
	churned                 mark          // of the part after that, with starts
	dropped, found          mark          // of the part with starts in which nothing is profiled
	foundStarts, foundOf    int           // Go programs that were found to run in the former, and how many were started
	after                   mark          // two windows after the end of the services
	steady                  int64         // RSS
	starts, others, counted int           // Go processes of the crowd, others, and Go processes that the agent counted
	named                   int           // of the Go processes
	used, seen              time.Duration // CPU time of the crowd's Go processes; of these, in profiles
}

// measure runs the agent in one situation.
func (b *bench) measure(ctx context.Context, s *situation) (err error) {
	h, err := b.populate(s)
	if err != nil {
		return err
	}
	defer h.stop()
	if err := sleep(ctx, b.settle); err != nil {
		return err
	}
	a, err := b.start(ctx, s)
	if err != nil {
		return err
	}
	defer a.kill()
	m := &measured{situation: s}
	err = b.follow(ctx, a, h, m)
	if b.keep != "" {
		err = errors.Join(err, b.save(a, m))
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, tail(a.log.Bytes()))
	}
	b.add(a, m)
	return nil
}

// follow measures one part after the other.
func (b *bench) follow(ctx context.Context, a *agent, h *host, m *measured) (err error) {
	if m.sampled, err = a.sampled(ctx, m.services); err != nil {
		return err
	}
	if m.services > 0 {
		if m.profiled, err = a.profiled(ctx, h.pids()); err != nil {
			return err
		}
	}
	if err := b.part(ctx, a, b.startup-time.Since(a.began), &m.begin); err != nil {
		return err
	}
	if err := b.part(ctx, a, m.situation.steady, &m.end); err != nil {
		return err
	}
	m.steady = median(a.between((m.begin.at+m.end.at)/2, m.end.at))
	c, err := b.crowd(ctx, a, m)
	if err != nil {
		return err
	}
	h.stop()
	if err := b.part(ctx, a, 2*window(m.situation)+window(m.situation)/5, &m.after); err != nil {
		return err
	}
	if err := a.end(); err != nil || c == nil {
		return err
	}
	f, err := a.cpuOf(c.cpu)
	m.named, m.seen = f.named, f.cpu
	return err
}

// part waits, and takes what is known then.
func (b *bench) part(ctx context.Context, a *agent, d time.Duration, m *mark) error {
	if err := sleep(ctx, d); err != nil {
		return err
	}
	var err error
	*m, err = a.mark()
	return err
}

// The agent looks at its ring buffer once a second.
const (
	dropPoll      = 2 * time.Second
	crowdPoll     = 500 * time.Millisecond
	crowdPatience = 3 * time.Second
)

const (
	targetsTotal = `pprofd_targets_total{kind="cpu"}`
	foundTotal   = "pprofd_discovery_found_total"
)

// crowd is the part in which processes start.
func (b *bench) crowd(ctx context.Context, a *agent, m *measured) (c *crowd, err error) {
	switch {
	case m.churn > 0:
		c, err = churn(ctx, b.churner, m.rate, m.churn)
	case m.short > 0:
		c, err = b.short(m.short)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m.churned = m.end
	m.counted, err = b.count(ctx, a, targetsTotal, len(c.cpu), &m.churned)
	m.starts, m.others, m.used = len(c.cpu), c.rest, c.used()
	if err == nil && m.churn > 0 {
		err = b.onlyFound(ctx, a, m)
	}
	return c, err
}

// onlyFound is the part in which all processes are found and named, and then not profiled, neither those that run nor those that start.
func (b *bench) onlyFound(ctx context.Context, a *agent, m *measured) error {
	if err := a.reload(configure(m.situation) + dropAll); err != nil {
		return err
	}
	m.dropped = m.churned
	for end := time.Now().Add(patience); ; {
		if err := b.part(ctx, a, dropPoll, &m.dropped); err != nil {
			return err
		}
		if n, ok := m.dropped.metrics[targetsMetric]; ok && n == 0 {
			break
		} else if time.Now().After(end) {
			return fmt.Errorf("%v processes are profiled that are not wanted any more", n)
		}
	}
	c, err := churn(ctx, b.churner, m.rate, m.churn)
	if err != nil {
		return err
	}
	m.foundOf, m.found = len(c.cpu), m.dropped
	m.foundStarts, err = b.count(ctx, a, foundTotal, m.foundOf, &m.found)
	return err
}

// count waits until the agent has counted n processes since m, or for long enough, and takes that mark.
func (b *bench) count(ctx context.Context, a *agent, metric string, n int, m *mark) (int, error) {
	before := m.metrics[metric]
	counted := func() int { return int(m.metrics[metric] - before) }
	for end := time.Now().Add(crowdPatience); ; {
		if err := b.part(ctx, a, crowdPoll, m); err != nil {
			return 0, err
		}
		if counted() >= n || time.Now().After(end) {
			return counted(), nil
		}
	}
}

// median RSS of samples.
func median(samples []sample) int64 {
	list := make([]int64, 0, len(samples))
	for _, s := range samples {
		list = append(list, s.rss)
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func (m *measured) label() string {
	return fmt.Sprintf("load=%s/services=%d/programs=%d/others=%d", m.name, m.services, m.binaries, m.sleepers)
}

// name of a line; the load ends by a slash.
func (m *measured) line() string { return "Fleet/" + m.label() }

// add reports what was measured.
func (b *bench) add(a *agent, m *measured) {
	values := []board.Value{{V: m.sampled.Seconds(), Unit: "sampled-s"}, {V: m.profiled.Seconds(), Unit: "profiled-s"}}
	values = append(values, m.memory()...)
	if m.situation.steady > 0 {
		values = append(values, m.use()...)
	}
	if m.starts > 0 {
		values = append(values, m.crowded()...)
	}
	b.report.Add(m.line(), 1, values...)
	b.curve(a, m)
}

func (m *measured) memory() []board.Value {
	last := m.end
	if m.starts > 0 {
		last = m.churned
	}
	return []board.Value{
		{V: float64(m.begin.peak), Unit: "start-peak-RSS-B"}, {V: float64(m.steady), Unit: "steady-RSS-B"}, {V: float64(last.peak), Unit: "peak-RSS-B"},
		{V: float64(m.after.rss), Unit: "after-RSS-B"}, {V: m.remaining(), Unit: "after-targets"},
		{V: last.metrics["process_open_fds"], Unit: "fds"}, {V: m.after.metrics["process_open_fds"], Unit: "after-fds"},
		{V: last.metrics["go_memstats_heap_inuse_bytes"], Unit: "heap-B"}, {V: m.after.metrics["go_memstats_heap_inuse_bytes"], Unit: "after-heap-B"},
	}
}

// remaining are the targets that are left after the end of the services. Other Go processes of the host stay.
func (m *measured) remaining() float64 {
	return max(m.after.metrics[targetsMetric]-(m.end.metrics[targetsMetric]-float64(m.services)), 0)
}

// use is what the agent used up.
func (m *measured) use() []board.Value {
	d := m.end.at - m.begin.at
	percent := func(part time.Duration) float64 { return 100 * part.Seconds() / d.Seconds() }
	last := m.end
	if m.starts > 0 {
		last = m.churned
	}
	v := []board.Value{
		{V: m.begin.cpu.Seconds(), Unit: "start-cpu-s"}, {V: percent(m.end.cpu - m.begin.cpu), Unit: "%core"},
		{V: percent(m.end.bpf - m.begin.bpf), Unit: "%BPF"}, {V: float64(m.end.bpfRuns-m.begin.bpfRuns) / d.Seconds(), Unit: "BPF-runs/s"},
		{V: float64(m.end.switches-m.begin.switches) / d.Seconds(), Unit: "sleeps/s"},
		{V: last.metrics[`pprofd_samples_recorded_total{kind="cpu"}`], Unit: "samples"}, {V: lost(last.metrics), Unit: "lost"},
		{V: float64(m.end.disk-m.begin.disk) / d.Hours(), Unit: "disk-B/h"},
	}
	for _, parts := range []struct{ metric, unit string }{
		{"pprofd_memory_reading_seconds_total", "%heap-reading"}, {`pprofd_building_seconds_total{kind="cpu"}`, "%building"},
		{`pprofd_export_seconds_total{destination="dir"}`, "%export"},
	} {
		v = append(v, board.Value{V: 100 * (m.end.metrics[parts.metric] - m.begin.metrics[parts.metric]) / d.Seconds(), Unit: parts.unit})
	}
	return v
}

// lost is all that the agent says to have lost.
func lost(m map[string]float64) (sum float64) {
	for _, name := range []string{
		`pprofd_samples_lost_total{kind="cpu"}`, `pprofd_events_lost_total{kind="cpu"}`, `pprofd_target_failures_total{kind="cpu"}`,
		`pprofd_profiles_undelivered_total{kind="cpu"}`, `pprofd_memory_readings_total{result="failed"}`,
		`pprofd_exports_total{destination="dir",result="failed"}`, `pprofd_exports_total{destination="dir",result="dropped"}`,
		`pprofd_targets_refused_total{kind="cpu"}`,
	} {
		sum += m[name]
	}
	return sum
}

// crowded tells of the part with starts, beside the part without.
func (m *measured) crowded() []board.Value {
	v := []board.Value{
		{V: float64(m.starts), Unit: "go-starts"}, {V: float64(m.counted), Unit: "counted"}, {V: float64(m.named), Unit: "named"},
		{V: float64(m.others), Unit: "other-starts"}, {V: m.used.Seconds(), Unit: "used-s"}, {V: m.seen.Seconds() / m.used.Seconds(), Unit: "profiled/used"},
		{V: float64(m.counted) / float64(m.starts), Unit: "counted/started"},
	}
	if m.churn == 0 {
		return v
	}
	added := share(m.end, m.churned, cpuOf) - share(m.begin, m.end, cpuOf)
	return append(v, board.Value{V: float64(m.foundStarts) / float64(m.foundOf), Unit: "found/started"},
		board.Value{V: share(m.dropped, m.found, cpuOf), Unit: "%core-of-finding"},
		board.Value{V: share(m.dropped, m.found, bpfOf), Unit: "%BPF-of-finding"},
		board.Value{V: (m.found.cpu - m.dropped.cpu).Seconds() * 1000 / float64(m.foundOf), Unit: "ms-a-process-by-finding"},
		board.Value{V: share(m.end, m.churned, cpuOf), Unit: "%core-with-starts"},
		board.Value{V: share(m.end, m.churned, bpfOf), Unit: "%BPF-with-starts"},
		board.Value{V: added, Unit: "%core-by-starts"},
		board.Value{V: added / 100 * 1000 * (m.churned.at - m.end.at).Seconds() / float64(m.starts), Unit: "ms-a-process-by-starts"})
}

func cpuOf(m mark) time.Duration { return m.cpu }
func bpfOf(m mark) time.Duration { return m.bpf }

// share of a core that was used between two marks, in percent.
func share(from, to mark, of func(mark) time.Duration) float64 {
	return 100 * (of(to) - of(from)).Seconds() / (to.at - from.at).Seconds()
}

// save leaves what may explain a result.
func (b *bench) save(a *agent, m *measured) error {
	dir := filepath.Join(b.keep, m.name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700), os.CopyFS(filepath.Join(dir, "profiles"), os.DirFS(a.dir))); err != nil {
		return err
	}
	var text []byte
	last := m.end
	if m.starts > 0 {
		last = m.churned
	}
	for name, v := range last.metrics {
		text = fmt.Appendf(text, "%s %v\n", name, v)
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "log"), a.log.Bytes(), 0o600), os.WriteFile(filepath.Join(dir, "metrics"), text, 0o600))
}

const tailBytes = 2000

func tail(b []byte) []byte { return b[max(0, len(b)-tailBytes):] }
