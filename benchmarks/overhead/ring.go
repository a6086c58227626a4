package main

import (
	"context"
	"errors"
	"time"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/profiler"
)

// ringHeader is what the ring buffer adds to a record (BPF_RINGBUF_HDR_SZ, include/uapi/linux/bpf.h).
const ringHeader = 8

// meter counts what comes through the ring buffer.
type meter struct {
	*bpf.Probes
	rec            *bpf.Recorder
	samples, bytes int
}

func (m *meter) Read(r *bpf.Record, deadline time.Time) error {
	if err := m.Probes.Read(r, deadline); err != nil || r.Type != bpf.TypeSample {
		return err
	}
	m.samples++
	return m.rec.Write(r)
}

// Write takes a record as a replay has it: its length in four bytes, then the record.
func (m *meter) Write(b []byte) (int, error) {
	m.bytes += len(b) - 4 + ringHeader
	return len(b), nil
}

const ringHz, ringWindow = 99, 2 * time.Second

// ring measures the bytes of a sample on their way to user space.
func (b *bench) ring(ctx context.Context, l load, f fleet) (err error) {
	probes, err := bpf.Load(bpf.Options{Frequency: ringHz, Event: bpf.EventCPUClock})
	if err != nil {
		return err
	}
	m := &meter{Probes: probes}
	m.rec = bpf.NewRecorder(m)
	p, err := profiler.New(profiler.Config{Source: m})
	if err != nil {
		return errors.Join(err, probes.Close())
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	for _, pid := range f.pids() {
		if err := p.Add(pid); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, ringWindow)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		return err
	}
	if m.samples == 0 {
		return errors.New("no samples in the ring buffer")
	}
	b.report.Add("Ring/"+l.String(), m.samples, board.Value{V: float64(m.bytes) / float64(m.samples), Unit: "ring-B/sample"})
	return nil
}
