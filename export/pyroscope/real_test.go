package pyroscope

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	profilev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

// realServer is a real one, that can be asked.
type realServer struct {
	url    string
	client querierv1connect.QuerierServiceClient
}

func startReal(t *testing.T) *realServer {
	t.Helper()
	url := fake.Real(t)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &realServer{url: url, client: querierv1connect.NewQuerierServiceClient(&http.Client{Transport: tr}, url)}
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

// TestRealPyroscopeDuplicates: what two processes of the agent sent, one after the other was killed, counts once when the server has compacted
// its blocks; no part is lost, though all have the same labels.
func TestRealPyroscopeDuplicates(t *testing.T) {
	r := startReal(t)
	p := encoded(t, large(t))
	for range 2 {
		patiently(t, newExporter(t, Options{URL: r.url}), p)
	}
	twice := want{samplesType, map[string]string{"pid": "4242"}, "", 2 * largeSum}
	if got := r.eventually(t, "shop", twice); got != twice.total {
		t.Fatalf("%d samples at first, not %d", got, twice.total)
	}
	once := twice
	once.total = largeSum
	e := newExporter(t, Options{URL: r.url})
	for end := time.Now().Add(2 * time.Minute); ; { // blocks are compacted when there are some
		m := newMaker("cpu", time.Now())
		one(m)
		filler := m.profile("cpu")
		filler.Service = "filler"
		patiently(t, e, filler)
		got, err := r.sum(t.Context(), "shop", once)
		switch {
		case err != nil:
			t.Fatal(err)
		case got == once.total:
			return
		case got < once.total || time.Now().After(end):
			t.Fatalf("%d samples in the end, not %d", got, once.total)
		}
	}
}
