// Package pyroscope sends profiles to a Pyroscope server: by its Push API, or by /ingest, which older servers take. What the server
// demands is in its own sources and was seen on it (grafana/pyroscope of August 2026, after v2.2.1); the names in the comments are
// its flags.
//
//  1. The labels of the series are made of those of the process (labels.go).
//  2. Where a profile is as the server wants it, its bytes go out as they are. Else it is decoded and mended (mend.go): other sample
//     types, too many labels of samples, stacks that are too deep; and if it is too large, it is halved until each part fits (split.go).
//  3. A request is sent (push.go, ingest.go) through a transport (transport.go) that authorizes it and sees the answer, which is judged
//     (answer.go).
package pyroscope

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/pprofd/pprofd/export"
)

// Exporter sends profiles to one server. It may be used by several goroutines, each with other profiles.
type Exporter struct {
	o      Options
	client *http.Client
	send   func(context.Context, *request) error
	stats  counters

	mu       sync.Mutex
	progress map[identity]*progress
	oldest   []identity // of progress, in the order that they came
}

// request is one profile, or a part of one, on its way.
type request struct {
	profile *export.Profile
	kind    kind
	series  []export.Label
	gzip    []byte
}

// New checks o. It does not connect: the server may come later.
func New(o Options) (*Exporter, error) {
	base, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("pyroscope: %w", err)
	}
	e := &Exporter{o: o, progress: map[identity]*progress{}}
	if e.client, err = newClient(&e.o); err != nil {
		return nil, fmt.Errorf("pyroscope: %w", err)
	}
	e.send = e.sender(base)
	return e, nil
}

// Close gives connections back. No Export may be under way.
func (e *Exporter) Close() error {
	e.client.CloseIdleConnections()
	return nil
}

// Export sends p, in parts if it is too large for one request. What was sent before an error is not sent again by the next call
// with p.
func (e *Exporter) Export(ctx context.Context, p *export.Profile) error {
	enc := p.Encoded
	if enc == nil { // not p.Encode: another exporter may have p at the same time
		if p.Data == nil {
			return invalid(p, errors.New("holds nothing"))
		}
		var err error
		own := *p
		if enc, err = own.Encode(); err != nil {
			return &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: fmt.Errorf("pyroscope: %w", err)}
		}
	}
	if enc.Samples == 0 {
		return nil // the server keeps nothing of it
	}
	k := kindOf(p.Kind)
	labels, dropped := series(p, k.name)
	e.stats.labels.Add(uint64(dropped))
	return e.deliver(ctx, &request{profile: p, kind: k, series: labels}, enc)
}

func invalid(p *export.Profile, err error) error {
	return &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: fmt.Errorf("pyroscope: %s profile of process %d: %w", p.Kind, p.PID, err)}
}

// Stats counts what was changed on the way, since the server would not have taken it as it was.
type Stats struct {
	Labels       uint64 // labels of processes that were left out: more than 30, or names that are the server's
	SampleLabels uint64 // labels of samples that were left out: too many series, or none of SampleLabels
	Stacks       uint64 // stacks of more than 1,000 frames, which have a frame [truncated]
	Split        uint64 // profiles that were sent in parts
}

type counters struct{ labels, sampleLabels, stacks, split atomic.Uint64 }

// Stats may be called at any time.
func (e *Exporter) Stats() Stats {
	s := &e.stats
	return Stats{Labels: s.labels.Load(), SampleLabels: s.sampleLabels.Load(), Stacks: s.stacks.Load(), Split: s.split.Load()}
}
