package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/procfs"
)

// record writes the load of this machine, second by second, to a file that can be committed as a trace.
func record(ctx context.Context, path, about string, length time.Duration) error {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return err
	}
	tr := trace{about: about}
	before, err := look(fs)
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, err := look(fs)
		if err != nil {
			return err
		}
		tr.cpus = now.cpus
		tr.points = append(tr.points, now.since(&before))
		before = now
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeTrace(f, &tr), f.Close())
}

// glance is what the kernel has counted since the machine's start.
type glance struct {
	at            time.Time
	cpus          float64
	busy, waiting float64 // seconds
}

func look(fs procfs.FS) (g glance, err error) {
	stat, err := fs.Stat()
	if err != nil {
		return g, err
	}
	psi, err := fs.PSIStatsForResource("cpu")
	if err != nil {
		return g, err
	}
	if psi.Some == nil {
		return g, errors.New("/proc/pressure/cpu says nothing of some")
	}
	t := stat.CPUTotal
	g.at, g.cpus, g.waiting = time.Now(), float64(len(stat.CPU)), float64(psi.Some.Total)/1e6
	g.busy = t.User + t.Nice + t.System + t.IRQ + t.SoftIRQ
	if g.cpus == 0 {
		return g, fmt.Errorf("/proc/stat has no CPUs")
	}
	return g, nil
}

func (g *glance) since(before *glance) point {
	d := g.at.Sub(before.at).Seconds()
	return point{min((g.busy-before.busy)/d, g.cpus), min((g.waiting-before.waiting)/d, 1)}
}
