package pyroscope

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	profilev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"

	"github.com/pprofd/pprofd/export"
)

// realServer is a Pyroscope server of its own, from PYROSCOPE_BIN or the PATH.
type realServer struct {
	url    string
	client querierv1connect.QuerierServiceClient
}

func startReal(t *testing.T) *realServer {
	t.Helper()
	bin := os.Getenv("PYROSCOPE_BIN")
	if bin == "" {
		var err error
		if bin, err = exec.LookPath("pyroscope"); err != nil {
			t.Skip("no Pyroscope server: PYROSCOPE_BIN is not set, and there is no pyroscope on the PATH")
		}
	}
	const ip = "127.0.0.1"
	port := func() string { return strconv.Itoa(freePort(t)) }
	http, grpc, raft := port(), port(), port()
	args := []string{
		"-server.http-listen-address=" + ip, "-server.http-listen-port=" + http, "-server.grpc-listen-address=" + ip, "-server.grpc-listen-port=" + grpc,
		"-metastore.address=" + ip + ":" + grpc, "-query-backend.address=" + ip + ":" + grpc, "-metastore.raft.server-id=" + ip,
		"-metastore.raft.bind-address=" + ip + ":" + raft, "-metastore.raft.advertise-address=" + ip + ":" + raft, "-metastore.raft.bootstrap-peers=" + ip + ":" + raft,
		"-memberlist.bind-addr=" + ip, "-memberlist.advertise-addr=" + ip, "-memberlist.bind-port=" + port(),
		"-metastore.min-ready-duration=0s", "-ingester.min-ready-duration=0s", "-segment-writer.min-ready-duration=0s",
		"-architecture.storage=v2", // beside version 1, nothing is shown for a minute
		"-self-profiling.disable-push=true", "-usage-stats.enabled=false",
	}
	for _, ring := range []string{"segment-writer.lifecycler.addr", "ingester.lifecycler.addr", "distributor.ring.instance-addr", "query-frontend.instance-addr",
		"query-scheduler.ring.instance-addr", "compactor.ring.instance-addr", "overrides-exporter.ring.instance-addr", "store-gateway.sharding-ring.instance-addr"} {
		args = append(args, "-"+ring+"="+ip)
	}
	log := &bytes.Buffer{}
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- cmd.Wait(); close(ended) }()
	stop := sync.OnceValue(func() error {
		_ = cmd.Process.Kill() // it may have ended by itself
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	r := &realServer{url: "http://" + ip + ":" + http}
	r.client = querierv1connect.NewQuerierServiceClient(client(t), r.url)
	for end := time.Now().Add(90 * time.Second); !ready(t, r.url); time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("%s did not become ready (%v): %s", bin, stop(), log.Bytes()[max(0, log.Len()-2000):])
		}
	}
	return r
}

func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func ready(t *testing.T, url string) bool {
	res, err := client(t).Get(url + "/ready")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// sum is what the server answers for w.
func (r *realServer) sum(ctx context.Context, service string, w want) (int64, error) {
	nodes := int64(1 << 20)
	q := &querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: w.typ, MaxNodes: &nodes, Format: querierv1.ProfileFormat_PROFILE_FORMAT_PPROF,
		Start: time.Now().Add(-2 * time.Hour).UnixMilli(), End: time.Now().Add(time.Minute).UnixMilli(),
	}
	selector := fmt.Sprintf("{service_name=%q", service)
	for _, name := range slices.Sorted(maps.Keys(w.labels)) {
		if name == "span_id" {
			q.SpanSelector = []string{w.labels[name]}
			continue
		}
		selector += fmt.Sprintf(",%s=%q", name, w.labels[name])
	}
	q.LabelSelector = selector + "}"
	res, err := r.client.SelectMergeStacktraces(ctx, connect.NewRequest(q))
	if err != nil {
		return 0, err
	}
	return total(res.Msg.GetPprof().GetProfile(), w.leaf), nil
}

// total adds up the first values of p, of the stacks with a leaf if one is given.
func total(p *profilev1.Profile, leaf string) (n int64) {
	names := map[uint64]string{}
	functions := map[uint64]string{}
	for _, f := range p.Function {
		functions[f.Id] = p.StringTable[f.Name]
	}
	for _, l := range p.Location {
		if len(l.Line) > 0 {
			names[l.Id] = functions[l.Line[0].FunctionId]
		}
	}
	for _, s := range p.Sample {
		if leaf == "" || len(s.LocationId) > 0 && names[s.LocationId[0]] == leaf {
			n += s.Value[0]
		}
	}
	return n
}

// eventually is the sum as soon as it is what is wanted, or what it is in the end: the server shows what it took after some time.
func (r *realServer) eventually(t *testing.T, service string, w want) int64 {
	t.Helper()
	var got int64
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if got, err = r.sum(t.Context(), service, w); err == nil && got == w.total {
			return got
		}
	}
	if err != nil {
		t.Errorf("%s: %v", w.typ, err)
	}
	return got
}

// TestRealPyroscope sends each scenario to a real server, by both interfaces, and asks it what it has.
func TestRealPyroscope(t *testing.T) {
	r := startReal(t)
	for _, api := range []string{APIPush, APIIngest} {
		e := newExporter(t, Options{URL: r.url, API: api})
		for i, c := range scenarios() {
			if c.push && api == APIIngest {
				continue
			}
			t.Run(api+"/"+c.name, func(t *testing.T) {
				p, wants := c.make(t)
				p.Service = fmt.Sprintf("%s-%d", api, i)
				patiently(t, e, p)
				for _, w := range wants {
					if got := r.eventually(t, p.Service, w); got != w.total {
						t.Errorf("%s of %v, leaf %q: %d, not %d", w.typ, w.labels, w.leaf, got, w.total)
					}
				}
			})
		}
	}
}

// patiently sends p as the queue does: again where the server asks for time.
func patiently(t *testing.T, e *Exporter, p *export.Profile) {
	t.Helper()
	for {
		err := e.Export(t.Context(), p)
		d := export.RetryOf(err)
		if err == nil {
			return
		}
		if d == nil || d.Reason != "rate_limited" {
			t.Fatal(err)
		}
		t.Log(err)
		time.Sleep(500 * time.Millisecond)
	}
}

// TestRealPyroscopeLimits sends what the server would refuse, or lose, if it were sent as it is.
func TestRealPyroscopeLimits(t *testing.T) {
	r := startReal(t)
	e := newExporter(t, Options{URL: r.url})
	m := newMaker("cpu", time.Now().Add(-time.Minute))
	for i := range 50 {
		m.add("f;main", int64(i+1), "endpoint", fmt.Sprint("/", i%5), "request", fmt.Sprint(i), "span_id", fmt.Sprintf("%016x", i%2))
	}
	p := m.profile("cpu")
	for i := range 60 {
		p.Labels = append(p.Labels, export.Label{Name: fmt.Sprintf("label.%d/x", i), Value: strings.Repeat("é", 2000)})
	}
	patiently(t, e, p)
	whole := want{samplesType, map[string]string{"pid": "4242", "host": "h1"}, "f", 50 * 51 / 2}
	if got := r.eventually(t, "shop", whole); got != whole.total {
		t.Errorf("%d samples, not %d", got, whole.total)
	}
}
