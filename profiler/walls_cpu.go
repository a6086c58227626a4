package profiler

import (
	"slices"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// CPUWindows hands the CPU profiles of a Profiler (Config.Windows) to the Walls that there is, if any.
type CPUWindows struct {
	mu     sync.Mutex
	runs   bool
	wanted bool
	now    *cpuWindow   // to which profiles are added
	over   []*cpuWindow // that Walls has not taken yet; the last ones
}

// cpuWindow is one window of CPU profiles.
type cpuWindow struct {
	began, ended time.Time
	profiles     map[Process][]*export.Profile
	complete     bool
}

const keptCPUWindows = 2

// begin and end say whether the Profiler runs.
func (c *CPUWindows) begin() { c.set(true) }
func (c *CPUWindows) end()   { c.set(false) }

func (c *CPUWindows) set(runs bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs = runs
}

// ends says that a window has ended; done is to be called when all its profiles were added.
func (c *CPUWindows) ends(began, ended time.Time) (done func()) {
	if c == nil {
		return func() {}
	}
	w := &cpuWindow{began: began, ended: ended, profiles: make(map[Process][]*export.Profile)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.wanted {
		return func() {}
	}
	c.now = w
	c.over = append(c.over, w)
	c.over = c.over[max(0, len(c.over)-keptCPUWindows):]
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		w.complete, c.now = true, nil
	}
}

// add adds a profile of the window that has ended last.
func (c *CPUWindows) add(p *export.Profile) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		of, own := Process{p.PID, p.StartTicks}, *p
		own.Data = unshared(p.Data)
		c.now.profiles[of] = append(c.now.profiles[of], &own)
	}
}

// unshared is what can be merged while somebody else encodes p, which writes to samples and lines.
func unshared(p *profile.Profile) *profile.Profile {
	locations := make(map[*profile.Location]*profile.Location, len(p.Location))
	out := &profile.Profile{
		SampleType: p.SampleType, PeriodType: p.PeriodType, Period: p.Period, TimeNanos: p.TimeNanos, DurationNanos: p.DurationNanos,
		Mapping: p.Mapping, Function: p.Function, DropFrames: p.DropFrames, KeepFrames: p.KeepFrames, Comments: slices.Clone(p.Comments),
	}
	for _, l := range p.Location {
		own := &profile.Location{ID: l.ID, Mapping: l.Mapping, Address: l.Address, IsFolded: l.IsFolded}
		for _, line := range l.Line {
			own.Line = append(own.Line, profile.Line{Function: line.Function, Line: line.Line, Column: line.Column})
		}
		locations[l] = own
		out.Location = append(out.Location, own)
	}
	for _, s := range p.Sample {
		own := &profile.Sample{Value: s.Value, Label: s.Label, NumLabel: s.NumLabel, NumUnit: s.NumUnit}
		for _, l := range s.Location {
			own.Location = append(own.Location, locations[l])
		}
		out.Sample = append(out.Sample, own)
	}
	return out
}

// want says whether there is somebody who takes windows.
func (c *CPUWindows) want(wanted bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted, c.now, c.over = wanted, nil, nil
}

// next takes the window that has ended, if any. runs: there may be more.
func (c *CPUWindows) next() (w *cpuWindow, runs bool) {
	if c == nil {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.over) > 0 {
		w = c.over[0]
		c.over[0] = nil
		c.over = c.over[1:]
	}
	return w, c.runs
}

// whole says whether all profiles of a window were added; nil has none.
func (c *CPUWindows) whole(w *cpuWindow) bool {
	if w == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return w.complete
}

// of is what p did until it executed another program, if it did.
func (w *cpuWindow) of(p Process) []*export.Profile {
	if w == nil {
		return nil
	}
	return w.profiles[p][:min(1, len(w.profiles[p]))]
}
