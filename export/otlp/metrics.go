package otlp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

// Metrics sends what a registry has, time and again. Sums are cumulative, so that a set that was not sent is lost only in its
// resolution: there is no spool.
type Metrics struct {
	every    time.Duration
	resource *resource.Resource
	from     prometheus.Gatherer
	to       metric.Exporter
	failed   func(error)
	close    func() error
}

// NewMetrics makes Metrics, which Run sends.
func NewMetrics(o Options, from prometheus.Gatherer) (*Metrics, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	m := &Metrics{every: o.Interval, resource: o.self(), from: from, failed: o.Failed}
	if m.failed == nil {
		m.failed = func(error) {}
	}
	var err error
	switch o.Protocol {
	case "", "grpc":
		err = m.overGRPC(&o)
	case "http":
		err = m.overHTTP(&o)
	default:
		err = fmt.Errorf("otlp: protocol %q: there are grpc and http", o.Protocol)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// self says who sends metrics: the agent.
func (o *Options) self() *resource.Resource {
	list := []attribute.KeyValue{
		attribute.String("service.name", "pprofd"),
		attribute.Int("process.pid", os.Getpid()),
		attribute.String("process.runtime.name", "go"),
	}
	if o.Version != "" {
		list = append(list, attribute.String("service.version", o.Version))
	}
	if host, err := os.Hostname(); err == nil {
		list = append(list, attribute.String("host.name", host))
	}
	return resource.NewWithAttributes(schema, list...)
}

func (m *Metrics) overGRPC(o *Options) error {
	conn, err := o.dial()
	if err != nil {
		return err
	}
	m.close = conn.Close
	m.to, err = otlpmetricgrpc.New(context.Background(), // it does not connect
		otlpmetricgrpc.WithGRPCConn(conn),
		otlpmetricgrpc.WithHeaders(map[string]string{}), // none from the environment
		otlpmetricgrpc.WithTimeout(o.Timeout),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: maxPause, MaxElapsedTime: o.Timeout}),
	)
	return err
}

func (m *Metrics) overHTTP(o *Options) error {
	url, client, err := o.httpClient()
	if err != nil {
		return err
	}
	m.close = func() error { client.CloseIdleConnections(); return nil }
	m.to, err = otlpmetrichttp.New(context.Background(), // it does not connect
		otlpmetrichttp.WithEndpointURL(url+metricsPath),
		otlpmetrichttp.WithHTTPClient(client),
		otlpmetrichttp.WithHeaders(map[string]string{}), // none from the environment
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression),
		otlpmetrichttp.WithTimeout(o.Timeout),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: maxPause, MaxElapsedTime: o.Timeout}),
	)
	return err
}

// Run sends a set each interval until ctx ends, and then a last one, within a second.
func (m *Metrics) Run(ctx context.Context) error {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			m.try(last)
			return nil
		case <-tick.C:
			m.try(ctx)
		}
	}
}

func (m *Metrics) try(ctx context.Context) {
	if err := m.Send(ctx); err != nil && !errors.Is(err, context.Canceled) {
		m.failed(err)
	}
}

// Send sends a set now: also where some of it could not be gathered, which is an error nevertheless.
func (m *Metrics) Send(ctx context.Context) error {
	families, err := m.from.Gather()
	// The bridge would report an error to a log of its own.
	got := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
	list, e := bridge.NewMetricProducer(bridge.WithGatherer(got)).Produce(ctx)
	err = errors.Join(err, e)
	if len(list) > 0 {
		err = errors.Join(err, m.to.Export(ctx, &metricdata.ResourceMetrics{Resource: m.resource, ScopeMetrics: list}))
	}
	if err != nil {
		return fmt.Errorf("otlp: metrics: %w", err)
	}
	return nil
}

// Close ends connections.
func (m *Metrics) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := m.to.Shutdown(ctx)
	if e := m.close(); err == nil {
		err = e
	}
	return err
}
