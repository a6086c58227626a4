package profiler

import (
	"context"
	"strconv"

	"github.com/pprofd/pprofd/export"
)

// checkGoroutines makes sure that t's goroutines can be read.
func (m *Memory) checkGoroutines(t *memTarget) error {
	_, err := m.goroutinesOf(t.process)
	return err
}

// exportGoroutines is what t's goroutines do now.
func (m *Memory) exportGoroutines(ctx context.Context, t *memTarget) (*export.Profile, error) {
	p, _, err := m.goroutineProfile(ctx, t.process)
	if err != nil || !m.cfg.Merge {
		return p, err
	}
	for _, s := range p.Data.Sample {
		if s.Label == nil {
			s.Label = make(map[string][]string)
		}
		s.Label["comm"], s.Label["pid"] = []string{t.comm}, []string{strconv.Itoa(int(t.pid))}
	}
	return p, nil
}
