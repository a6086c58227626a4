package parca

import (
	"bytes"
	"compress/gzip"
	"os"
	"strings"
	"testing"
	"time"

	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pprofd/pprofd/export/parca/profilestorepb"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// request is what a case changes before it is sent.
type request struct {
	p      *googlev1.Profile
	labels *profilestorepb.LabelSet
	infos  []*profilestorepb.ExecutableInfo
	raw    func([]byte) []byte
}

func newRequest() *request {
	return &request{
		p: &googlev1.Profile{
			StringTable: []string{"", "samples", "count", "cpu", "nanoseconds", "main.f", "a.go", "/bin/a", "key", "value"},
			SampleType:  []*googlev1.ValueType{{Type: 1, Unit: 2}, {Type: 3, Unit: 4}},
			PeriodType:  &googlev1.ValueType{Type: 3, Unit: 4}, Period: 1e7, TimeNanos: time.Now().UnixNano(), DurationNanos: 1e9,
			Mapping:  []*googlev1.Mapping{{Id: 1, MemoryLimit: 4096, Filename: 7}},
			Function: []*googlev1.Function{{Id: 1, Name: 5, SystemName: 5, Filename: 6}},
			Location: []*googlev1.Location{{Id: 1, MappingId: 1, Address: 16, Line: []*googlev1.Line{{FunctionId: 1, Line: 3}}}},
			Sample:   []*googlev1.Sample{{LocationId: []uint64{1}, Value: []int64{1, 10}, Label: []*googlev1.Label{{Key: 8, Str: 9}}}},
		},
		labels: &profilestorepb.LabelSet{Labels: []*profilestorepb.Label{{Name: "__name__", Value: "process_cpu"}, {Name: "pid", Value: "1"}}},
		raw:    func(b []byte) []byte { return b },
	}
}

func (r *request) message(t *testing.T) *profilestorepb.WriteRawRequest {
	t.Helper()
	b, err := proto.Marshal(r.p)
	if err != nil {
		t.Fatal(err)
	}
	return &profilestorepb.WriteRawRequest{Normalized: true, Series: []*profilestorepb.RawProfileSeries{{
		Labels: r.labels, Samples: []*profilestorepb.RawSample{{RawProfile: r.raw(b), ExecutableInfo: r.infos}},
	}}}
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

type answer struct {
	name   string
	change func(*request)
	code   codes.Code
	stored int
	harm   string // what is to be told of it; "": nothing
	deadly bool   // a real server does not survive it, or not well
}

func label(name, value string) func(*request) {
	return func(r *request) {
		r.labels.Labels = append(r.labels.Labels, &profilestorepb.Label{Name: name, Value: value})
	}
}

// answers are those of the real server.
var answers = []answer{
	{name: "a profile", change: func(*request) {}, stored: 1},
	{name: "gzip", change: func(r *request) { r.raw = zip }, stored: 1},
	{name: "half a gzip", change: func(r *request) { r.raw = func(b []byte) []byte { return zip(b)[:30] } }, code: codes.Unknown},
	{name: "nothing", change: func(r *request) { r.raw = func([]byte) []byte { return nil } }},
	{name: "no samples", change: func(r *request) { r.p.Sample = nil }},
	{name: "no name", change: func(r *request) { r.labels.Labels = r.labels.Labels[1:] }, code: codes.InvalidArgument},
	{name: "an empty name", change: func(r *request) { r.labels.Labels[0].Value = "" }, code: codes.InvalidArgument},
	{name: "a name that no query can have", change: func(r *request) { r.labels.Labels[0].Value = "process-cpu" }, code: codes.Unknown},
	{name: "a type that no query can have", change: func(r *request) { r.p.StringTable[1] = "sam/ples" }, code: codes.Unknown},
	{name: "a period type that no query can have", change: func(r *request) { r.p.StringTable[3] = "off cpu" }, code: codes.Unknown},
	{name: "a label without a name", change: label("", "x"), code: codes.InvalidArgument},
	{name: "a label twice", change: label("pid", "1"), code: codes.InvalidArgument},
	{name: "a label of any name", change: label("größe-1.0", "x"), stored: 1},
	{name: "an empty label", change: label("x", ""), stored: 1},
	{name: "a first string", change: func(r *request) { r.p.StringTable[0] = "x" }, code: codes.InvalidArgument},
	{name: "mappings out of order", change: func(r *request) { r.p.Mapping[0].Id, r.p.Location[0].MappingId = 2, 2 }, code: codes.InvalidArgument},
	{name: "functions out of order", change: func(r *request) { r.p.Function[0].Id = 2 }, code: codes.InvalidArgument},
	{name: "locations out of order", change: func(r *request) { r.p.Location[0].Id = 2 }, code: codes.InvalidArgument},
	{name: "a mapping that is none", change: func(r *request) { r.p.Location[0].MappingId = 2 }, code: codes.InvalidArgument},
	{name: "a function that is none", change: func(r *request) { r.p.Location[0].Line[0].FunctionId = 2 }, code: codes.InvalidArgument},
	{name: "a location that is none", change: func(r *request) { r.p.Sample[0].LocationId[0] = 2 }, code: codes.InvalidArgument},
	{name: "location 0", change: func(r *request) { r.p.Sample[0].LocationId[0] = 0 }, code: codes.InvalidArgument},
	{name: "a string that is none", change: func(r *request) { r.p.Function[0].Name = 10 }, code: codes.InvalidArgument},
	{name: "a file that is none", change: func(r *request) { r.p.Mapping[0].Filename = 10 }, code: codes.InvalidArgument},
	{name: "a type that is none", change: func(r *request) { r.p.SampleType[0].Type = 10 }, code: codes.InvalidArgument},
	{name: "a period type that is none", change: func(r *request) { r.p.PeriodType.Type = 10 }, code: codes.InvalidArgument},
	{name: "no types", change: func(r *request) { r.p.SampleType = nil }, code: codes.InvalidArgument},
	{name: "too many values", change: func(r *request) { r.p.Sample[0].Value = []int64{1, 2, 3} }, code: codes.InvalidArgument},
	{name: "a sample's label without a key", change: func(r *request) { r.p.Sample[0].Label[0].Key = 0 }, code: codes.InvalidArgument},
	{name: "a sample's label that is none", change: func(r *request) { r.p.Sample[0].Label[0].Str = 10 }, code: codes.InvalidArgument},
	{name: "executable infos", change: func(r *request) { r.infos = []*profilestorepb.ExecutableInfo{{}} }, stored: 1},
	{name: "too many executable infos", change: func(r *request) { r.infos = []*profilestorepb.ExecutableInfo{{}, {}} }, code: codes.InvalidArgument},
	{name: "too much", change: func(r *request) { r.raw = func([]byte) []byte { return make([]byte, MaxMessage+1) } }, code: codes.ResourceExhausted},

	{name: "a negative value", change: func(r *request) { r.p.Sample[0].Value[0] = -1 }, stored: 1, harm: "-1, which it subtracts"},
	{name: "no time", change: func(r *request) { r.p.TimeNanos = 0 }, stored: 1, harm: "1970"},
	{name: "a negative duration", change: func(r *request) { r.p.DurationNanos = -1 }, stored: 1, harm: "negative duration"},
	{name: "all zero", change: func(r *request) { r.p.Sample[0].Value = []int64{0, 0} }, stored: 1, harm: "all zero"},
	{name: "no stack", change: func(r *request) { r.p.Sample[0].LocationId = nil }, stored: 1, harm: "no stack"},
	{name: "a line without a function", change: func(r *request) { r.p.Location[0].Line[0].FunctionId = 0 }, code: codes.Unknown, harm: "without a function", deadly: true},
	{name: "no period type", change: func(r *request) { r.p.PeriodType = nil }, stored: 1, harm: "no period type", deadly: true},
	{name: "no labels message", change: func(r *request) { r.labels = nil }, code: codes.Unavailable, harm: "nil dereference", deadly: true},
	{name: "no strings", change: func(r *request) {
		r.p = &googlev1.Profile{SampleType: []*googlev1.ValueType{{}}, Sample: []*googlev1.Sample{{Value: []int64{1}}}}
	}, code: codes.Unavailable, harm: "index out of range", deadly: true},
}

func dial(t *testing.T, addr string) profilestorepb.ProfileStoreServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return profilestorepb.NewProfileStoreServiceClient(conn)
}

func TestAnswers(t *testing.T) {
	var harm []string
	s := Start(t, Options{Harm: func(what string) { harm = append(harm, what) }})
	client := dial(t, s.Addr)
	for _, a := range answers {
		t.Run(a.name, func(t *testing.T) {
			harm = nil
			s.Forget()
			r := newRequest()
			a.change(r)
			_, err := client.WriteRaw(t.Context(), r.message(t))
			if status.Code(err) != a.code || len(s.Stored()) != a.stored {
				t.Errorf("%v, %d stored", err, len(s.Stored()))
			}
			told := strings.Join(harm, "; ")
			if (a.harm == "") != (told == "") || !strings.Contains(told, a.harm) {
				t.Errorf("harm: %q, wanted %q", told, a.harm)
			}
		})
	}
}

// TestRealParcaAnswers holds a real server (PARCA_BIN) against the same table.
func TestRealParcaAnswers(t *testing.T) {
	client := dial(t, StartReal(t))
	for _, a := range answers {
		if a.deadly {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			r := newRequest()
			a.change(r)
			if _, err := client.WriteRaw(t.Context(), r.message(t)); status.Code(err) != a.code {
				t.Errorf("%v; wanted %v", err, a.code)
			}
		})
	}
}

// One wrong profile of a request, and none is stored.
func TestAllOrNothing(t *testing.T) {
	s := Start(t, Options{})
	client := dial(t, s.Addr)
	m := newRequest().message(t)
	wrong := newRequest()
	wrong.labels.Labels[0].Value = ""
	m.Series = append(m.Series, wrong.message(t).Series...)
	if _, err := client.WriteRaw(t.Context(), m); status.Code(err) != codes.InvalidArgument || len(s.Stored()) != 0 {
		t.Errorf("%v, %d stored", err, len(s.Stored()))
	}
	m.Series = m.Series[:1]
	for range 2 { // no more does it recognize what comes again
		if _, err := client.WriteRaw(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	st := s.Stored()
	if len(st) != 2 || st[0].Sum("cpu") != 10 || st[0].Sum("none") != 0 || st[0].Labels["pid"] != "1" || s.Requests() != 3 {
		t.Errorf("%+v", st)
	}
}

func TestRefuse(t *testing.T) {
	s := Start(t, Options{Token: "t"})
	client := dial(t, s.Addr)
	s.Refuse(2, codes.Aborted, "x")
	for _, want := range []codes.Code{codes.Aborted, codes.Aborted, codes.Unauthenticated} {
		if _, err := client.WriteRaw(t.Context(), newRequest().message(t)); status.Code(err) != want {
			t.Errorf("%v, wanted %v", err, want)
		}
	}
}
