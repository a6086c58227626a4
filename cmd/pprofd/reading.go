package main

import (
	"errors"
	"fmt"

	"github.com/pprofd/pprofd/profiler"
)

// contention is one kind of it, block or mutex.
type contention struct {
	kind   string
	memory *profiler.Memory
}

func isContention(kind string) bool { return kind == profiler.KindBlock || kind == profiler.KindMutex }

// openMemory prepares what is read. Kinds of contention are read each by itself: a process may have one switched on and not the other.
func (r *recording) openMemory() {
	var kinds []string
	for _, kind := range r.o.memoryKinds() {
		if isContention(kind) {
			r.contention = append(r.contention, contention{kind, r.newMemory(kind)})
		} else {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) > 0 {
		r.memory = r.newMemory(kinds...)
	}
}

func (r *recording) newMemory(kinds ...string) *profiler.Memory {
	return profiler.NewMemory(profiler.MemoryConfig{
		Log: r.log, Kinds: kinds, Unpublished: r.o.unpublished, Merge: r.o.merge, Exporter: r.sink, ProcRoot: procRoot, Version: version(),
		Difference: r.o.durationExplicit,
	})
}

// memories are all that read.
func (r *recording) memories() (all []*profiler.Memory) {
	if r.memory != nil {
		all = append(all, r.memory)
	}
	for _, c := range r.contention {
		all = append(all, c.memory)
	}
	return all
}

// openWall prepares snapshots of what goroutines do.
func (r *recording) openWall() {
	r.wall = profiler.NewWall(profiler.WallConfig{
		Log: r.log, Frequency: r.o.wallFrequency, States: r.o.states, Reasons: r.o.reasons, Merge: r.o.merge,
		Exporter: r.sink, ProcRoot: procRoot, Version: version(),
	})
}

// addContention makes a running process a target of what reads its profiles of contention; those that it has switched off are estimated.
func (r *recording) addContention(pid int) error {
	for _, c := range r.contention {
		err := c.memory.Add(pid)
		if profiler.Estimable(err) {
			err = r.estimate(pid, c, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// estimate has a kind estimated that cannot be read, which is what why says.
func (r *recording) estimate(pid int, c contention, why error) error {
	if r.o.merge && c.memory.Targets() > 0 {
		return fmt.Errorf("--merge cannot join what process %d counts of %s with what is estimated of others: record them one by one", pid, c.kind)
	}
	if r.wall == nil {
		r.openWall()
	}
	if err := r.wall.Estimate(pid, c.kind); err != nil {
		return explainGoroutines(err)
	}
	r.addEstimated(why)
	return nil
}

// estimated says what is estimated of which processes: why is an error that names the first of them.
type estimated struct {
	why    error
	others int
}

// addEstimated counts processes of which the same is to be said.
func (r *recording) addEstimated(why error) {
	for i, e := range r.estimated {
		for _, off := range []error{profiler.ErrBlockOff, profiler.ErrMutexOff} {
			if errors.Is(e.why, off) && errors.Is(why, off) {
				r.estimated[i].others++
				return
			}
		}
	}
	r.estimated = append(r.estimated, estimated{why: why})
}

func (e estimated) note() string {
	const what = "what is written is an estimate, from what goroutines were seen to wait for"
	if e.others == 0 {
		return fmt.Sprintf("%v; %s", e.why, what)
	}
	return fmt.Sprintf("%v; the same holds for %d more; %s", e.why, e.others, what)
}

// atOnce: there is nothing to wait for.
func (r *recording) atOnce() bool { return r.o.atOnce() && len(r.estimated) == 0 }
