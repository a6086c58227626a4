package otlp

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"

	fake "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
)

// registry has a metric of each kind that the agent has.
func registry(t *testing.T) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "things_total", Help: "h"}, []string{"kind"})
	counter.WithLabelValues("a").Add(3)
	counter.WithLabelValues("b").Add(4)
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "size_bytes", Help: "h"})
	gauge.Set(1.5)
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took_seconds", Help: "h", Buckets: []float64{1, 2}})
	histogram.Observe(0.5)
	histogram.Observe(5)
	r.MustRegister(counter, gauge, histogram)
	return r
}

func metrics(t *testing.T, s *fake.Server, o Options, from prometheus.Gatherer) *Metrics {
	t.Helper()
	o.Endpoint = s.GRPC()
	if o.Protocol == "http" {
		o.Endpoint = s.HTTP()
	}
	m, err := NewMetrics(o, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// TestMetrics: the registry's numbers arrive, as what they are.
func TestMetrics(t *testing.T) {
	for _, protocol := range protocols {
		s := fake.Start(t, fake.Options{})
		if err := metrics(t, s, Options{Protocol: protocol, Version: "v1.2"}, registry(t)).Send(t.Context()); err != nil {
			t.Fatal(err)
		}
		a, _ := s.Metric("things_total", "kind", "a")
		b, _ := s.Metric("things_total", "kind", "b")
		if a.Value != 3 || b.Value != 4 || a.Kind != "Sum" {
			t.Errorf("%s: %+v, %+v", protocol, a, b)
		}
		if g, ok := s.Metric("size_bytes"); !ok || g.Value != 1.5 || g.Kind != "Gauge" {
			t.Errorf("%s: %+v", protocol, g)
		}
		if h, ok := s.Metric("took_seconds"); !ok || h.Value != 5.5 || h.Count != 2 || h.Kind != "Histogram" {
			t.Errorf("%s: %+v", protocol, h)
		}
		if r := a.Resource; r["service.name"] != "pprofd" || r["service.version"] != "v1.2" || r["host.name"] == nil || r["process.pid"] == nil {
			t.Errorf("%s: %v", protocol, r)
		}
	}
}

// failures are what Options.Failed is told.
type failures struct {
	mu   sync.Mutex
	list []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, err)
}

func (f *failures) get() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list
}

// TestRun: a set each interval, and a last one when the agent ends; failures are told, and do not end it.
func TestRun(t *testing.T) {
	for _, protocol := range protocols {
		s := fake.Start(t, fake.Options{})
		refused := fake.Fault{Code: codes.InvalidArgument, Status: 400, Message: "no"}
		partly := fake.Fault{Rejected: 2, Message: "too many"}
		s.Inject(fake.Fault{}, refused, partly)
		var f failures
		r := registry(t)
		m := metrics(t, s, Options{Protocol: protocol, Interval: 20 * time.Millisecond, Failed: f.add}, r)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		for end := time.Now().Add(20 * time.Second); s.MetricSets() < 5 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		late := prometheus.NewGauge(prometheus.GaugeOpts{Name: "late", Help: "h"})
		r.MustRegister(late)
		cancel()
		done.Wait()
		if _, ok := s.Metric("late"); !ok || s.MetricSets() < 5 {
			t.Errorf("%s: %d sets; the last one there: %v", protocol, s.MetricSets(), ok)
		}
		if list := f.get(); len(list) != 2 {
			t.Errorf("%s: failures: %v", protocol, list)
		}
	}
}

// TestMetricsRetry: a server that is busy for a moment gets the same set again.
func TestMetricsRetry(t *testing.T) {
	for _, protocol := range protocols {
		s := fake.Start(t, fake.Options{})
		s.Inject(fake.Fault{Code: codes.Unavailable, Status: 503, Message: "busy"})
		if err := metrics(t, s, Options{Protocol: protocol}, registry(t)).Send(t.Context()); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		if s.Requests() != 2 || s.MetricSets() != 1 {
			t.Errorf("%s: %d requests, %d sets", protocol, s.Requests(), s.MetricSets())
		}
	}
}

// TestMetricsOfABrokenRegistry: what could be gathered is sent, and what could not be is told.
func TestMetricsOfABrokenRegistry(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	r := registry(t)
	broken := prometheus.GathererFunc(func() (list []*dto.MetricFamily, err error) {
		list, err = r.Gather()
		return list, errors.Join(err, errors.New("half of it is broken"))
	})
	if err := metrics(t, s, Options{}, broken).Send(t.Context()); err == nil || s.MetricSets() != 1 {
		t.Errorf("%v, %d sets", err, s.MetricSets())
	}
	empty := metrics(t, s, Options{}, prometheus.NewRegistry())
	if err := empty.Send(t.Context()); err != nil || s.Requests() != 1 {
		t.Errorf("an empty registry: %v, %d requests", err, s.Requests())
	}
}
