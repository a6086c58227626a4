package profiler

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/pprofd/pprofd/export"
)

// openGoroutines opens t's goroutines, of the process that runs or of its core file.
func (m *Memory) openGoroutines(t *memTarget) (*Goroutines, error) {
	if t.core != (coreFile{}) {
		return OpenGoroutinesOfCore(t.core.path, t.core.exe)
	}
	g, err := OpenGoroutines(int(t.pid), m.cfg.ProcRoot)
	if err == nil && g.start != t.start {
		return nil, errors.Join(ended(Process{PID: int(t.pid), Start: t.start}), g.Close())
	}
	return g, err
}

// coreFile names a core file, and its program where that lies elsewhere.
type coreFile struct{ path, exe string }

// checkGoroutines makes sure that t's goroutines can be read.
func (m *Memory) checkGoroutines(t *memTarget) error {
	g, err := m.openGoroutines(t)
	if err != nil {
		return err
	}
	return g.Close()
}

// exportGoroutines is what t's goroutines do now.
func (m *Memory) exportGoroutines(ctx context.Context, t *memTarget) (p *export.Profile, err error) {
	g, err := m.openGoroutines(t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	var groups GoroutineGroups
	start := time.Now()
	_, err = g.Read(ctx, GoroutineQuery{Labels: true}, func(one *Goroutine) error {
		groups.Add(one)
		return nil
	})
	if err != nil {
		return nil, err
	}
	p = g.Profile(&groups, start, m.cfg.Version)
	if !m.cfg.Merge {
		return p, nil
	}
	for _, s := range p.Data.Sample {
		if s.Label == nil {
			s.Label = make(map[string][]string)
		}
		s.Label["comm"], s.Label["pid"] = []string{t.comm}, []string{strconv.Itoa(int(t.pid))}
	}
	return p, nil
}
