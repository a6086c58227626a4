package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/otlp"
	"github.com/pprofd/pprofd/export/parca"
	"github.com/pprofd/pprofd/export/pyroscope"
	"github.com/pprofd/pprofd/export/spool"
	"github.com/pprofd/pprofd/internal/agent/config"
)

// wanted is a server that a configuration names.
type wanted struct {
	name   string
	config any // all that it says of the server
	// authorities is when the file with certificates was changed. All other files are read when they are needed.
	authorities time.Time
	parallel    int
	timeout     time.Duration
	maxAge      time.Duration // of profiles that it takes; 0: any
	profiles    func() (export.Exporter, error)
	metrics     func() (sender, error)
}

func (w *wanted) takesProfiles() bool { return w.profiles != nil }

// sender sends metrics until its context ends.
type sender interface {
	Run(context.Context) error
	Close() error
}

// parts are what sends to a server.
type parts struct {
	exporter export.Exporter
	cursor   *spool.Cursor
	metrics  sender
}

func (p *parts) close() error {
	var errs []error
	if p.exporter != nil {
		errs = append(errs, p.exporter.Close())
	}
	if p.metrics != nil {
		errs = append(errs, p.metrics.Close())
	}
	return errors.Join(errs...)
}

func closeAll(opened map[string]parts) error {
	var errs []error
	for _, p := range opened {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// openAll makes what sends to servers; it does not connect.
func openAll(list []wanted) (map[string]parts, error) {
	opened := make(map[string]parts)
	for _, w := range list {
		p, err := w.open()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", w.name, err), p.close(), closeAll(opened))
		}
		opened[w.name] = p
	}
	return opened, nil
}

func (w *wanted) open() (p parts, err error) {
	if w.profiles != nil {
		if p.exporter, err = w.profiles(); err != nil {
			p.exporter = nil
			return p, err
		}
	}
	if w.metrics != nil {
		if p.metrics, err = w.metrics(); err != nil {
			p.metrics = nil
		}
	}
	return p, err
}

// wanted are the servers of c.
func (s *servers) wanted(c *config.Config) (list []wanted) {
	for _, p := range c.Pyroscope {
		w := wantServer(&p.Server, p)
		w.maxAge = maxPyroscopeAge
		w.profiles = func() (export.Exporter, error) { return pyroscope.New(pyroscopeOptions(&p)) }
		list = append(list, w)
	}
	for _, p := range c.Parca {
		w := wantServer(&p.Server, p)
		w.profiles = func() (export.Exporter, error) { return parca.New(s.parcaOptions(&p)) }
		list = append(list, w)
	}
	for _, o := range c.OTLP {
		w := wantServer(&o.Server, o)
		if o.Profiles {
			w.profiles = func() (export.Exporter, error) { return otlp.New(s.otlpOptions(&o)) }
		}
		if o.Metrics {
			w.metrics = func() (sender, error) { return otlp.NewMetrics(s.otlpOptions(&o), s.registry) }
		}
		list = append(list, w)
	}
	return list
}

func wantServer(s *config.Server, all any) wanted {
	w := wanted{name: s.Name, config: all, parallel: s.Parallel, timeout: s.Timeout}
	if st, err := os.Stat(s.TLS.CA); err == nil {
		w.authorities = st.ModTime()
	}
	return w
}

func pyroscopeOptions(p *config.Pyroscope) pyroscope.Options {
	o := pyroscope.Options{
		URL: p.Address, API: p.API, Tenant: p.Tenant, BasicAuth: pyroscope.BasicAuth(p.BasicAuth), BearerTokenFile: p.BearerTokenFile,
		TLS: export.TLS(p.TLS), Headers: p.Headers, Timeout: p.Timeout, SampleLabels: append([]string{}, p.SampleLabels...),
	}
	if slices.Contains(p.SampleLabels, "*") {
		o.SampleLabels = nil
	}
	return o
}

func (s *servers) parcaOptions(p *config.Parca) parca.Options {
	return parca.Options{
		Address: p.Address, Insecure: p.Insecure, TLS: export.TLS(p.TLS), BearerTokenFile: p.BearerTokenFile, Headers: p.Headers,
		Timeout: p.Timeout, SampleLabels: p.SampleLabels, Version: s.version,
	}
}

func (s *servers) otlpOptions(o *config.OTLP) otlp.Options {
	t := newTroubles(s.log, o.Name)
	t.bad = "metrics cannot be sent"
	return otlp.Options{
		Endpoint: o.Address, Protocol: o.Protocol, Insecure: o.Insecure, TLS: export.TLS(o.TLS), BearerTokenFile: o.BearerTokenFile, Headers: o.Headers,
		Timeout: o.Timeout, Version: s.version, Interval: o.Interval, Failed: func(err error) { t.failed(err, 0) },
	}
}
