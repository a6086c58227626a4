package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
)

// measured is one window of the agent's governor.
type measured struct {
	stage   string
	first   bool    // of its stage
	at      float64 // s since the first
	length  float64 // s, between the two looks from outside
	busy    float64 // CPUs
	summary bool
	rate    float64 // Hz
	ceiling float64
	load    float64 // as the agent sees it
	budget  float64 // CPUs
	spent   float64 // CPUs, by the agent's own account
	outside parts
	inside  parts // by the agent's own account
}

// parts of what profiling costs, in CPUs.
type parts struct{ user, bpf, ticks float64 }

func (p *parts) sum() float64 { return p.user + p.bpf + p.ticks }

// observer looks at the agent once in each of its windows, right behind its end.
type observer struct {
	*agent
	tick   time.Duration
	cpus   int
	window time.Duration

	began, due time.Time
	startUp    time.Duration // CPU time of the agent before the first window
	before     moment
}

// moment is what is known behind the end of a window.
type moment struct {
	at      time.Time
	metrics map[string]float64
	user    time.Duration // of the agent's process
	bpf     time.Duration // of its programs
	host    glance
}

const (
	metricWindows = "pprofd_overhead_windows_total"
	metricRate    = `pprofd_rate{kind="cpu"}`
	metricCeiling = `pprofd_rate_ceiling{kind="cpu"}`
	metricSummary = `pprofd_mode{mode="summary"}`
	metricBudget  = "pprofd_overhead_budget_cpus"
	metricSpent   = "pprofd_overhead_spent_cpus"
	metricLoad    = "pprofd_host_load"
	metricPart    = `pprofd_overhead_cpus{kind=%q,part=%q}`

	behind   = 100 * time.Millisecond // the end of a window
	syncPoll = 20 * time.Millisecond
)

// sync waits until a window ends, so that the ends of all others are known.
func (o *observer) sync(ctx context.Context) error {
	seen := -1.0
	for end := time.Now().Add(patience); ; {
		m, err := agents.Metrics(o.url)
		switch {
		case o.ended() != nil:
			return o.ended()
		case errors.Is(err, syscall.ECONNREFUSED): // it has not begun to listen
		case err != nil:
			return err
		case seen > 0 && m[metricWindows] > seen: // the first one has its beginning in it
			o.due = time.Now().Add(behind)
			return o.begin(ctx)
		default:
			seen = m[metricWindows]
		}
		if time.Now().After(end) {
			return fmt.Errorf("no window has ended within %v: %s is %v", patience, metricWindows, seen)
		}
		if err := sleep(ctx, syncPoll); err != nil {
			return err
		}
	}
}

func (o *observer) begin(ctx context.Context) error {
	if err := sleep(ctx, time.Until(o.due)); err != nil {
		return err
	}
	var err error
	o.before, err = o.look()
	o.began, o.startUp = o.before.at, o.before.user
	return err
}

// next waits for the end of the next window and says what it cost.
func (o *observer) next(ctx context.Context) (m measured, err error) {
	o.due = o.due.Add(o.window)
	if err := sleep(ctx, time.Until(o.due)); err != nil {
		return m, err
	}
	now, err := o.end(ctx)
	if err != nil {
		return m, err
	}
	was := &o.before
	length := now.at.Sub(was.at).Seconds()
	busy := now.host.since(&was.host)
	m = measured{
		at: was.at.Sub(o.began).Seconds(), length: length, busy: busy.busy, summary: was.metrics[metricSummary] == 1,
		rate: was.metrics[metricRate], ceiling: was.metrics[metricCeiling], load: now.metrics[metricLoad],
		budget: now.metrics[metricBudget], spent: now.metrics[metricSpent],
	}
	m.outside = parts{(now.user - was.user).Seconds() / length, (now.bpf - was.bpf).Seconds() / length, m.rate * float64(o.cpus) * o.tick.Seconds()}
	m.inside = insides(now.metrics)
	o.before = now
	return m, nil
}

// end looks behind the end of a window, which is late where the machine is busy.
func (o *observer) end(ctx context.Context) (moment, error) {
	for {
		if err := o.ended(); err != nil {
			return moment{}, err
		}
		now, err := o.look()
		if err != nil {
			return now, err
		}
		n := now.metrics[metricWindows] - o.before.metrics[metricWindows]
		switch {
		case n == 1:
			return now, nil
		case n > 1 || now.at.After(o.due.Add(o.window)):
			return now, fmt.Errorf("%v of the governor's windows have ended, not 1", n)
		}
		if err := sleep(ctx, behind); err != nil {
			return now, err
		}
	}
}

// insides are the parts as the agent counts them.
func insides(m map[string]float64) (p parts) {
	for _, kind := range []string{"agent", "cpu", "memory", "allocs"} {
		part := func(name string) float64 { return m[fmt.Sprintf(metricPart, kind, name)] }
		p.user, p.bpf, p.ticks = p.user+part("user"), p.bpf+part("bpf"), p.ticks+part("interrupts")+part("probes")
	}
	return p
}

func (o *observer) look() (m moment, err error) {
	m.at = time.Now()
	if m.user, err = processClock(o.cmd.Process.Pid); err != nil {
		return m, err
	}
	if m.bpf, _, err = agents.ProgramTime(o.cmd.Process.Pid); err != nil {
		return m, err
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return m, err
	}
	if m.host, err = look(fs); err != nil {
		return m, err
	}
	m.metrics, err = agents.Metrics(o.url)
	return m, err
}

// processClock is the CPU time of another process, of all its threads, by nanoseconds: the clock that clock_getcpuclockid(3)
// names. /proc/PID/stat has ticks of 10 ms.
func processClock(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|schedClock, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
