package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/profiler"
)

// state is what the process with the profiler tells of itself, one JSON line a second.
type state struct {
	Goroutines int
	Heap       float64 // MB in use
	Use        bpf.Use

	Windows  int
	Profiles int
	Samples  uint64 // in profiles, [lost] ones included
	Recorded uint64 // by the kernel side
	Lost     uint64
	Targets  int
	Cycles   int

	Late   int    // processes that had ended before they could be added
	Failed string // the last failure that may not be
}

// agent is the measured process: a Profiler that is told on its standard input of processes.
type agent struct {
	probes *bpf.Probes
	p      *profiler.Profiler

	mu    sync.Mutex
	state state
}

// Export is an exporter that encodes profiles, counts them and throws them away.
func (a *agent) Export(_ context.Context, p *export.Profile) error {
	n := uint64(0)
	for _, s := range p.Data.Sample {
		n += uint64(s.Value[0])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Profiles++
	a.state.Samples += n
	return p.Data.Write(io.Discard)
}

func (*agent) Close() error { return nil }

// serve profiles what in names ("add PID", "exec PID PROGRAM") until its end, and tells out of itself.
func serve(in io.Reader, out io.Writer, o *options) error {
	var err error
	a := &agent{}
	if a.probes, err = bpf.Load(bpf.Options{Frequency: o.hz, Event: bpf.EventCPUClock}); err != nil {
		return err
	}
	if a.p, err = profiler.New(profiler.Config{Source: a.probes, Frequency: o.hz, Window: o.window, Exporter: a}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.p.Run(ctx) }()
	told := make(chan error, 1)
	go func() { told <- tell(ctx, out, a.look) }()
	err = a.obey(in)
	cancel()
	err = errors.Join(err, <-done, <-told)
	a.look()
	return errors.Join(err, json.NewEncoder(out).Encode(a.state), a.p.Close())
}

// obey adds what it is told.
func (a *agent) obey(in io.Reader) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			return fmt.Errorf("not understood: %q", lines.Text())
		}
		pid, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		if words[0] == "exec" {
			err = a.p.AddAtExec(pid, words[2])
		} else {
			err = a.p.Add(pid)
		}
		a.added(err)
	}
	return nil
}

func (a *agent) added(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case errors.Is(err, os.ErrNotExist):
		a.state.Late++
	case err != nil:
		a.state.Failed = err.Error()
	}
}

// look brings the state up to date.
func (a *agent) look() state {
	s := a.p.Stats()
	use, err := a.probes.Use()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state.Use = use; err != nil {
		a.state.Failed = err.Error()
	}
	a.state.Recorded, a.state.Lost, a.state.Targets = s.Recorded, s.Lost, s.Targets
	a.state.process()
	return a.state
}

func (s *state) process() {
	list := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(list)
	s.Goroutines, s.Heap = int(list[0].Value.Uint64()), float64(list[1].Value.Uint64())/1e6
}

// tell writes a state every second until the end of ctx.
func tell(ctx context.Context, out io.Writer, look func() state) error {
	enc := json.NewEncoder(out)
	for tick := time.NewTicker(time.Second); ; {
		if err := enc.Encode(look()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// cycle loads, runs and closes a profiler over and over, each with itself as the target.
func cycle(out io.Writer, o *options) error {
	var mu sync.Mutex
	var s state
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told := make(chan error, 1)
	go func() {
		told <- tell(ctx, out, func() state {
			mu.Lock()
			defer mu.Unlock()
			s.process()
			return s
		})
	}()
	for range o.cycles {
		if err := once(o); err != nil {
			return err
		}
		mu.Lock()
		s.Cycles++
		mu.Unlock()
	}
	cancel()
	err := <-told
	s.process()
	return errors.Join(err, json.NewEncoder(out).Encode(s))
}

// once is the life of a profiler.
func once(o *options) (err error) {
	a := &agent{}
	p, err := profiler.New(profiler.Config{Frequency: o.hz, Event: string(bpf.EventCPUClock), Exporter: a})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Add(os.Getpid()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	return p.Run(ctx)
}
