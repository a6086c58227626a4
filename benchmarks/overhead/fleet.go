package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
)

// fleet is a number of services.
type fleet []*agents.Service

// load is what the services are to do.
type load struct {
	processes, binaries int
	idle                bool
}

func (l load) String() string {
	state := "busy"
	if l.idle {
		state = "idle"
	}
	return fmt.Sprintf("processes=%d/binaries=%d/load=%s", l.processes, l.binaries, state)
}

const (
	idlePause = "1s"
	settle    = 500 * time.Millisecond // of services that have just begun
)

// startFleet starts services. One alone may use two CPUs, many have one each.
func (b *bench) startFleet(l load) (f fleet, err error) {
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	args := []string{"-procs", "2", "-clients", "4"}
	if l.processes > 1 {
		args = []string{"-procs", "1", "-clients", "1"}
	}
	if l.idle {
		args = append(args, "-pause", idlePause)
	}
	for i := range l.processes {
		path, err := b.services.Program(i % l.binaries)
		if err != nil {
			return f, err
		}
		s, err := agents.StartService(path, args)
		if err != nil {
			return f, err
		}
		f = append(f, s)
		if l.processes > crowd {
			if err := s.Pause(crowdNice); err != nil {
				return f, err
			}
		}
	}
	if err := f.resume(); err != nil {
		return f, err
	}
	time.Sleep(settle)
	return f, nil
}

// More than crowd services are too many for the CPUs of any machine that this runs on. Each waits until all have started, which
// would take minutes otherwise, and all have less weight than the profilers, which are to be measured and not to be starved:
// on a host of services the kernel sees to that by control groups.
const (
	crowd     = 100
	crowdNice = 10
)

func (f fleet) resume() error {
	var errs []error
	for _, s := range f {
		errs = append(errs, unix.Kill(s.PID(), unix.SIGCONT))
	}
	return errors.Join(errs...)
}

func (f fleet) stop() {
	for _, s := range f {
		s.Stop()
	}
}

func (f fleet) pids() (list []int) {
	for _, s := range f {
		list = append(list, s.PID())
	}
	return list
}

// sampling asks for all of the fleet.
func (f fleet) sampling(hz int, d time.Duration) agents.Sampling {
	o := agents.Sampling{PID: f[0].PID(), Hz: hz, D: d}
	if len(f) > 1 {
		o.PIDs = f.pids()
	}
	return o
}

// all sends each service a command, by its number; each must answer "ok".
func (f fleet) all(command func(i int) string) error {
	return f.each(command, func(_ int, answer string) error {
		if answer != "ok" {
			return errors.New("refused")
		}
		return nil
	})
}

// each sends all services a command at once, since a service that shares its CPU with a hundred takes its time to answer.
func (f fleet) each(command func(i int) string, take func(i int, answer string) error) error {
	var g errgroup.Group
	for i, s := range f {
		g.Go(func() error {
			answer, err := s.Ask(command(i))
			if err == nil {
				err = take(i, answer)
			}
			if err != nil {
				return fmt.Errorf("service %d: %q: %w", s.PID(), answer, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// rate is how many requests the services answer a second, over a window.
func (f fleet) rate(window time.Duration) (float64, error) {
	before, err := f.counts()
	if err != nil {
		return 0, err
	}
	time.Sleep(window)
	after, err := f.counts()
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for i := range f {
		sum += float64(after[i].requests-before[i].requests) / (after[i].at - before[i].at).Seconds()
	}
	return sum, nil
}

type count struct {
	requests int64
	at       time.Duration // since the service's start
}

func (f fleet) counts() ([]count, error) {
	list := make([]count, len(f))
	return list, f.each(func(int) string { return "count" }, func(i int, answer string) error {
		_, err := fmt.Sscanf(answer, "count %d %d", &list[i].requests, &list[i].at)
		return err
	})
}
