package otlp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// valid is a request with two samples and one of everything.
func valid() pprofile.Profiles {
	all := pprofile.NewProfiles()
	d := all.Dictionary()
	d.StringTable().FromRaw([]string{"", "cpu", "nanoseconds", "main.f", "main.go", "/bin/app", "key"})
	d.FunctionTable().AppendEmpty()
	f := d.FunctionTable().AppendEmpty()
	f.SetNameStrindex(3)
	f.SetFilenameStrindex(4)
	d.MappingTable().AppendEmpty()
	m := d.MappingTable().AppendEmpty()
	m.SetFilenameStrindex(5)
	d.LocationTable().AppendEmpty()
	for i := range 2 {
		l := d.LocationTable().AppendEmpty()
		l.SetMappingIndex(1)
		l.SetAddress(uint64(16 + i))
		l.Lines().AppendEmpty().SetFunctionIndex(1)
	}
	d.StackTable().AppendEmpty()
	d.StackTable().AppendEmpty().LocationIndices().FromRaw([]int32{1, 2})
	d.AttributeTable().AppendEmpty()
	a := d.AttributeTable().AppendEmpty()
	a.SetKeyStrindex(6)
	a.Value().SetStr("v")
	d.LinkTable().AppendEmpty()
	d.LinkTable().AppendEmpty().SetSpanID(pcommon.SpanID{1})
	rp := all.ResourceProfiles().AppendEmpty()
	rp.SetSchemaUrl("https://opentelemetry.io/schemas/1.41.0")
	rp.Resource().Attributes().PutStr("service.name", "s")
	sp := rp.ScopeProfiles().AppendEmpty()
	sp.SetSchemaUrl("https://opentelemetry.io/schemas/1.41.0")
	sp.Scope().SetName("test")
	p := sp.Profiles().AppendEmpty()
	p.SampleType().SetTypeStrindex(1)
	p.SampleType().SetUnitStrindex(2)
	p.PeriodType().SetTypeStrindex(1)
	p.PeriodType().SetUnitStrindex(2)
	p.SetPeriod(10)
	p.SetTime(pcommon.NewTimestampFromTime(time.Now()))
	p.SetDurationNano(5)
	p.SetProfileID(pprofile.ProfileID{1})
	s := p.Samples().AppendEmpty()
	s.SetStackIndex(1)
	s.Values().FromRaw([]int64{7})
	s.AttributeIndices().FromRaw([]int32{1})
	s = p.Samples().AppendEmpty()
	s.SetStackIndex(1)
	s.SetLinkIndex(1)
	s.Values().FromRaw([]int64{8})
	return all
}

// faulty are requests with one thing wrong, by what the refusal has to say.
func faulty() map[string]func(pprofile.Profiles) {
	type all = pprofile.Profiles
	dict := func(a all) pprofile.ProfilesDictionary { return a.Dictionary() }
	prof := func(a all) pprofile.Profile { return a.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0) }
	attrs := func(a all) pcommon.Map { return a.ResourceProfiles().At(0).Resource().Attributes() }
	sample := func(a all) pprofile.Sample { return prof(a).Samples().At(0) }
	return map[string]func(all){
		"there are no profiles":                         func(a all) { a.ResourceProfiles().RemoveIf(func(pprofile.ResourceProfiles) bool { return true }) },
		"link_table is empty":                           func(a all) { dict(a).LinkTable().RemoveIf(func(pprofile.Link) bool { return true }) },
		"string_table[0] is not its zero value":         func(a all) { dict(a).StringTable().SetAt(0, "x") },
		"function_table[0] is not its zero value":       func(a all) { dict(a).FunctionTable().At(0).SetStartLine(1) },
		"mapping_table[0] is not its zero value":        func(a all) { dict(a).MappingTable().At(0).SetMemoryLimit(1) },
		"location_table[0] is not its zero value":       func(a all) { dict(a).LocationTable().At(0).SetAddress(1) },
		"stack_table[0] is not its zero value":          func(a all) { dict(a).StackTable().At(0).LocationIndices().Append(1) },
		"attribute_table[0] is not its zero value":      func(a all) { dict(a).AttributeTable().At(0).Value().SetBool(true) },
		"link_table[0] is not its zero value":           func(a all) { dict(a).LinkTable().At(0).SetSpanID(pcommon.SpanID{2}) },
		"no service.name":                               func(a all) { attrs(a).PutStr("service.name", "") },
		`attribute ""`:                                  func(a all) { attrs(a).PutStr("", "x") },
		"no UTF-8":                                      func(a all) { attrs(a).PutStr("x", "\xff") },
		"schema URL":                                    func(a all) { a.ResourceProfiles().At(0).SetSchemaUrl("1.2") },
		"a resource has no scope":                       func(a all) { a.ResourceProfiles().AppendEmpty() },
		"a scope has no name":                           func(a all) { a.ResourceProfiles().At(0).ScopeProfiles().At(0).Scope().SetName("") },
		"has no sample type":                            func(a all) { prof(a).SampleType().SetUnitStrindex(0) },
		"sample type: 99":                               func(a all) { prof(a).SampleType().SetTypeStrindex(99) },
		"has no period":                                 func(a all) { prof(a).SetPeriod(0) },
		"is of 1970":                                    func(a all) { prof(a).SetTime(0) },
		"lasted 25h":                                    func(a all) { prof(a).SetDurationNano(uint64(25 * time.Hour)) },
		"has no id":                                     func(a all) { prof(a).SetProfileID(pprofile.ProfileID{}) },
		"half of an original payload":                   func(a all) { prof(a).SetOriginalPayloadFormat("pprof") },
		"profile 0: 9 is not in the table":              func(a all) { prof(a).AttributeIndices().Append(9) },
		"has no samples":                                func(a all) { prof(a).Samples().RemoveIf(func(pprofile.Sample) bool { return true }) },
		"differs from another in nothing but its value": func(a all) { sample(a).CopyTo(prof(a).Samples().AppendEmpty()) },
		"stack: 9 is not in the table":                  func(a all) { sample(a).SetStackIndex(9) },
		"stack: -1 is not in the table":                 func(a all) { sample(a).SetStackIndex(-1) },
		"has no stack":                                  func(a all) { sample(a).SetStackIndex(0) },
		"link: 2 is not in the table":                   func(a all) { sample(a).SetLinkIndex(2) },
		"its key is there twice":                        func(a all) { sample(a).AttributeIndices().Append(1) },
		"has 0 values and 0 times":                      func(a all) { sample(a).Values().FromRaw(nil) },
		"has 1 values and 2 times":                      func(a all) { sample(a).TimestampsUnixNano().FromRaw([]uint64{1, 2}) },
		"has 2 values and 0 times":                      func(a all) { sample(a).Values().Append(1) },
		"has the value -1":                              func(a all) { sample(a).Values().FromRaw([]int64{-1}) },
		"is no UTF-8":                                   func(a all) { dict(a).StringTable().SetAt(3, "\xff") },
		"location: 7 is not in the table":               func(a all) { dict(a).StackTable().At(1).LocationIndices().Append(7) },
		"mapping: 7 is not in the table":                func(a all) { dict(a).LocationTable().At(1).SetMappingIndex(7) },
		"function: 7 is not in the table":               func(a all) { dict(a).LocationTable().At(1).Lines().At(0).SetFunctionIndex(7) },
		"line -1":                                       func(a all) { dict(a).LocationTable().At(1).Lines().At(0).SetLine(-1) },
		"mapping 1: file: 99":                           func(a all) { dict(a).MappingTable().At(1).SetFilenameStrindex(99) },
		"function 1: name: 99":                          func(a all) { dict(a).FunctionTable().At(1).SetNameStrindex(99) },
		"has neither names nor a file": func(a all) {
			dict(a).FunctionTable().At(1).SetNameStrindex(0)
			dict(a).FunctionTable().At(1).SetFilenameStrindex(0)
		},
		"attribute 1 has no key":                func(a all) { dict(a).AttributeTable().At(1).SetKeyStrindex(0) },
		"attribute 1: unit: 99":                 func(a all) { dict(a).AttributeTable().At(1).SetUnitStrindex(99) },
		"string_table has its number 7 twice":   func(a all) { dict(a).StringTable().Append("key") },
		"function_table has its number 2 twice": func(a all) { again(dict(a).FunctionTable().At(1), dict(a).FunctionTable().AppendEmpty()) },
		"mapping_table has its number 2 twice":  func(a all) { again(dict(a).MappingTable().At(1), dict(a).MappingTable().AppendEmpty()) },
		"location_table has its number 3 twice": func(a all) { again(dict(a).LocationTable().At(1), dict(a).LocationTable().AppendEmpty()) },
		"stack_table has its number 2 twice":    func(a all) { again(dict(a).StackTable().At(1), dict(a).StackTable().AppendEmpty()) },
		"attribute_table has its number 2 twice": func(a all) {
			again(dict(a).AttributeTable().At(1), dict(a).AttributeTable().AppendEmpty())
		},
		"link_table has its number 2 twice":                  func(a all) { again(dict(a).LinkTable().At(1), dict(a).LinkTable().AppendEmpty()) },
		"string_table[7] is referred to by nothing":          func(a all) { dict(a).StringTable().Append("x") },
		"function_table[2] is referred to by nothing":        func(a all) { dict(a).FunctionTable().AppendEmpty().SetNameStrindex(1) },
		"stack_table[2] is referred to by nothing":           func(a all) { dict(a).StackTable().AppendEmpty().LocationIndices().Append(2) },
		"mapping_table[2] is referred to by nothing":         func(a all) { dict(a).MappingTable().AppendEmpty().SetMemoryLimit(9) },
		"location_table[3] is referred to by nothing":        func(a all) { dict(a).LocationTable().AppendEmpty().SetAddress(99) },
		"link_table[2] is referred to by nothing":            func(a all) { dict(a).LinkTable().AppendEmpty().SetSpanID(pcommon.SpanID{3}) },
		"attribute_table[2] is referred to by nothing":       func(a all) { dict(a).AttributeTable().AppendEmpty().SetKeyStrindex(1) },
		"location 1: 9 is not in the table of 2":             func(a all) { dict(a).LocationTable().At(1).AttributeIndices().Append(9) },
		"mapping 1: 9 is not in the table of 2":              func(a all) { dict(a).MappingTable().At(1).AttributeIndices().Append(9) },
		"location 1: attribute 0: none, or its key is there": func(a all) { dict(a).LocationTable().At(1).AttributeIndices().Append(0) },
	}
}

func again[T interface{ CopyTo(T) }](from, to T) { from.CopyTo(to) }

func TestCheckRefuses(t *testing.T) {
	if err := check(valid()); err != nil {
		t.Fatalf("a request without fault: %v", err)
	}
	for want, spoil := range faulty() {
		a := valid()
		spoil(a)
		if err := check(a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestOverTheWire: what is refused gets the codes that say so, over both protocols; what is taken is summed up, once.
func TestOverTheWire(t *testing.T) {
	s := Start(t, Options{})
	bad := valid()
	bad.ResourceProfiles().At(0).Resource().Attributes().Clear()
	if err := overGRPC(t, s, bad); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "service.name") {
		t.Errorf("gRPC: %v", err)
	}
	if code, text := post(t, s, bad, nil); code != http.StatusBadRequest || !strings.Contains(text, "service.name") {
		t.Errorf("HTTP: %d %q", code, text)
	}
	good := valid()
	if err := overGRPC(t, s, good); err != nil {
		t.Error(err)
	}
	if code, text := post(t, s, good, nil); code != http.StatusOK {
		t.Errorf("HTTP: %d %q", code, text)
	}
	if list := s.Profiles(); len(list) != 1 || list[0].Sum != 15 || list[0].Times != 2 || list[0].Kind() != "cpu" || s.Sum("s", "cpu") != 15 || len(s.Taken()) != 2 {
		t.Errorf("%+v", list)
	}
	if n := len(s.Refused()); n != 2 || s.Requests() != 4 {
		t.Errorf("%d refused of %d", n, s.Requests())
	}
	prof := func(a pprofile.Profiles) pprofile.Profile {
		return a.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0)
	}
	sameID := valid()
	prof(sameID).SetTime(prof(good).Time() + 1)
	if err := overGRPC(t, s, sameID); err == nil || !strings.Contains(err.Error(), "two profiles have the id") {
		t.Errorf("an id that is used: %v", err)
	}
	sameTime := valid()
	prof(sameTime).SetTime(prof(good).Time())
	prof(sameTime).SetProfileID(pprofile.ProfileID{2})
	if err := overGRPC(t, s, sameTime); err == nil || !strings.Contains(err.Error(), "two profiles of the same process") {
		t.Errorf("another profile of the same process and time: %v", err)
	}
}

// TestHTTPRefuses: requests that are none.
func TestHTTPRefuses(t *testing.T) {
	s := Start(t, Options{MaxRequest: 10_000, Headers: map[string]string{"x-tenant": "a"}})
	for name, c := range map[string]struct {
		spoil func(*http.Request)
		code  int
	}{
		"none":           {func(*http.Request) {}, 200},
		"content type":   {func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415},
		"encoding":       {func(r *http.Request) { r.Header.Set("Content-Encoding", "br") }, 400},
		"not compressed": {func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 400},
		"version":        {func(r *http.Request) { r.Header.Set(pprofileotlp.DevelopmentVersionHeader, "99") }, 400},
		"no version":     {func(r *http.Request) { r.Header.Del(pprofileotlp.DevelopmentVersionHeader) }, 400},
		"no tenant":      {func(r *http.Request) { r.Header.Del("x-tenant") }, 401},
		"GET":            {func(r *http.Request) { r.Method = http.MethodGet }, 405},
		"path":           {func(r *http.Request) { r.URL.Path = "/v1/profiles" }, 404},
		"garbage":        {func(r *http.Request) { body(r, []byte("garbage")) }, 400},
		"length":         {func(r *http.Request) { body(r, make([]byte, 20_000)) }, 413},
	} {
		code, text := post(t, s, valid(), func(r *http.Request) {
			r.Header.Set("x-tenant", "a")
			c.spoil(r)
		})
		if code != c.code {
			t.Errorf("%s: %d %q", name, code, text)
		}
	}
}

func body(r *http.Request, b []byte) {
	r.Body, r.ContentLength, r.GetBody = io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}

func overGRPC(t *testing.T, s *Server, all pprofile.Profiles) error {
	t.Helper()
	conn, err := grpc.NewClient(s.GRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = pprofileotlp.NewGRPCClient(conn).Export(t.Context(), pprofileotlp.NewExportRequestFromProfiles(all))
	return err
}

func post(t *testing.T, s *Server, all pprofile.Profiles, change func(*http.Request)) (int, string) {
	t.Helper()
	kept := pprofile.NewProfiles()
	all.CopyTo(kept)
	b, err := (&pprofile.ProtoMarshaler{}).MarshalProfiles(kept)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.HTTP()+"/v1development/profiles", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", protobuf)
	r.Header.Set(pprofileotlp.DevelopmentVersionHeader, pprofileotlp.DevelopmentVersion)
	if change != nil {
		change(r)
	}
	client := &http.Client{}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestMetricsRefused: what is wrong with sets of metrics.
func TestMetricsRefused(t *testing.T) {
	s := Start(t, Options{})
	for want, spoil := range map[string]func(pmetric.Metrics){
		"":                func(pmetric.Metrics) {},
		"no service.name": func(m pmetric.Metrics) { m.ResourceMetrics().At(0).Resource().Attributes().Clear() },
		"no name":         func(m pmetric.Metrics) { m.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).SetName("") },
		"has no name or no poin": func(m pmetric.Metrics) {
			m.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().AppendEmpty().SetName("x")
		},
		"is of 1970": func(m pmetric.Metrics) {
			m.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Gauge().DataPoints().At(0).SetTimestamp(0)
		},
		"there are no metrics": func(m pmetric.Metrics) {
			m.ResourceMetrics().RemoveIf(func(pmetric.ResourceMetrics) bool { return true })
		},
	} {
		m := pmetric.NewMetrics()
		rm := m.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service.name", "s")
		g := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		g.SetName("x")
		p := g.SetEmptyGauge().DataPoints().AppendEmpty()
		p.SetIntValue(4)
		p.SetTimestamp(pcommon.NewTimestampFromTime(time.Now()))
		spoil(m)
		conn, err := grpc.NewClient(s.GRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pmetricotlp.NewGRPCClient(conn).Export(context.Background(), pmetricotlp.NewExportRequestFromMetrics(m))
		_ = conn.Close()
		if fmt.Sprint(err) != "<nil>" && want == "" || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if p, ok := s.Metric("x"); !ok || p.Value != 4 || s.MetricSets() != 1 {
		t.Errorf("%+v, %d sets", p, s.MetricSets())
	}
}

// TestInject: faults come in their order, and then there are none.
func TestInject(t *testing.T) {
	s := Start(t, Options{})
	s.Inject(Fault{Code: codes.Aborted}, Fault{Code: codes.DataLoss}, Fault{Lost: true})
	var got []codes.Code
	a := valid()
	for range 4 {
		got = append(got, status.Code(overGRPC(t, s, a)))
	}
	if want := []codes.Code{codes.Aborted, codes.DataLoss, codes.Unavailable, codes.OK}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if list := s.Profiles(); len(list) != 1 || list[0].Times != 2 {
		t.Errorf("%+v", list)
	}
}
