package otlp

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
)

// TestRealCollector sends through an OpenTelemetry Collector (OTELCOL_BIN), which hands on to the strict server: what it takes, and
// makes of it, is right. It needs the receiver otlp and the exporter otlp, of a version near that of pdata in go.mod.
func TestRealCollector(t *testing.T) {
	bin := os.Getenv("OTELCOL_BIN")
	if bin == "" {
		t.Skip("OTELCOL_BIN is not set: the path of an OpenTelemetry Collector")
	}
	s := fake.Start(t, fake.Options{})
	c := startCollector(t, bin, s)
	for i, o := range []Options{{Endpoint: c.grpc}, {Endpoint: "http://" + c.http, Protocol: "http"}} {
		x, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Close() })
		cpu := &export.Profile{Kind: "cpu", Service: "shop", PID: i + 1, StartTicks: 3, Labels: list("host", "h", "user", "u"), Data: cpuProfile(t)}
		heap := &export.Profile{Kind: "heap", Service: "shop", PID: i + 1, Data: heapProfile(t)}
		if err := soon(t, func() error { return x.Export(t.Context(), cpu) }); err != nil {
			t.Fatalf("%v\n%s", err, c.said())
		}
		if err := x.Export(t.Context(), heap); err != nil {
			t.Fatalf("%v\n%s", err, c.said())
		}
		taken := s.Taken()
		if len(taken) != 2*(i+1) {
			t.Fatalf("%d requests", len(taken))
		}
		if diff := cmp.Diff(describe(merged(t, encoded(t, cpu.Data))), describe(back(t, taken[2*i]))); diff != "" {
			t.Errorf("%s: %s", o.Endpoint, diff)
		}
		if n, last := x.Warnings(); n != 0 {
			t.Errorf("it warns: %s", last)
		}
		m, err := NewMetrics(o, registry(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		if err := m.Send(context.Background()); err != nil {
			t.Errorf("%v\n%s", err, c.said())
		}
		if s.MetricSets() != i+1 {
			t.Errorf("%d sets of metrics", s.MetricSets())
		}
	}
	if p, ok := s.Metric("things_total", "kind", "b"); !ok || p.Value != 4 {
		t.Errorf("%+v", p)
	}
	if len(s.Refused()) != 0 {
		t.Error(s.Refused())
	}
	t.Logf("%d profiles", len(s.Profiles()))
}

type collector struct {
	grpc, http string
	log        string // path of a file
}

func (c *collector) said() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func startCollector(t *testing.T, bin string, to *fake.Server) *collector {
	t.Helper()
	c := &collector{grpc: freeAddress(t), http: freeAddress(t)}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	c.log = filepath.Join(dir, "log")
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
receivers: {otlp: {protocols: {grpc: {endpoint: %q}, http: {endpoint: %q}}}}
exporters: {otlp: {endpoint: %q, tls: {insecure: true}, sending_queue: {enabled: false}, retry_on_failure: {enabled: false}}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    profiles: {receivers: [otlp], exporters: [otlp]}
    metrics: {receivers: [otlp], exporters: [otlp]}
`, c.grpc, c.http, to.GRPC())
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--config", path, "--feature-gates", "service.profilesSupport")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			t.Log(c.said())
		}
	})
	return c
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
