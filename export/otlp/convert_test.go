package otlp

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
)

// exporter makes one to the server, for a protocol.
func exporter(t testing.TB, s *fake.Server, o Options) *Exporter {
	t.Helper()
	o.Endpoint = s.GRPC()
	if o.Protocol == "http" {
		o.Endpoint = s.HTTP()
	}
	x, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// sent is what the server took when p was sent.
func sent(t testing.TB, p *export.Profile, o Options) pprofile.Profiles {
	t.Helper()
	s := fake.Start(t, fake.Options{})
	if err := exporter(t, s, o).Export(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	list := s.Taken()
	if len(list) != 1 {
		t.Fatalf("%d requests", len(list))
	}
	return list[0]
}

var protocols = []string{"grpc", "http"}

var sum int

//go:noinline
func burn(n int) {
	for i := range n {
		sum += inlined(i)
	}
}

func inlined(i int) int { return i*i%7 + len(fmt.Sprint(i)) }

// cpuProfile is a real one of this process, with labels; a busy machine takes longer.
func cpuProfile(t testing.TB) *profile.Profile {
	t.Helper()
	for d := 250 * time.Millisecond; d < time.Minute; d *= 2 {
		if p := cpuProfileFor(t, d); len(p.Sample) > 10 {
			return p
		}
	}
	t.Fatal("there is no profile with more than 10 stacks")
	return nil
}

func cpuProfileFor(t testing.TB, d time.Duration) *profile.Profile {
	t.Helper()
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		pprof.Do(context.Background(), pprof.Labels("endpoint", "/a", "tenant", "x"), func(context.Context) { burn(10000) })
		burn(10000)
	}
	pprof.StopCPUProfile()
	return parsed(t, b.Bytes())
}

var kept [][]byte

func heapProfile(t testing.TB) *profile.Profile {
	t.Helper()
	old := runtime.MemProfileRate
	runtime.MemProfileRate = 1024
	for i := range 2000 {
		kept = append(kept, make([]byte, 100+i))
	}
	runtime.MemProfileRate = old
	runtime.GC()
	var b bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&b, 0); err != nil {
		t.Fatal(err)
	}
	return parsed(t, b.Bytes())
}

func parsed(t testing.TB, b []byte) *profile.Profile {
	t.Helper()
	p, err := profile.ParseData(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// encoded is what p.Encode makes of d, read again: what is to be sent.
func encoded(t testing.TB, d *profile.Profile) *profile.Profile {
	t.Helper()
	e, err := export.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, e.Gzip)
}

// TestCPUProfileComesBack: what arrives says what was sent, in every stack, line, label and value.
func TestCPUProfileComesBack(t *testing.T) {
	d := cpuProfile(t)
	for _, protocol := range protocols {
		p := &export.Profile{Kind: "cpu", PID: 1, Service: "s", Start: time.Unix(0, d.TimeNanos), Data: d}
		got := back(t, sent(t, p, Options{Protocol: protocol}))
		if diff := cmp.Diff(describe(merged(t, encoded(t, d))), describe(got)); diff != "" {
			t.Errorf("%s: %s", protocol, diff)
		}
		if want, got := top(t, d), top(t, got); want != got {
			t.Errorf("%s: go tool pprof -top says\n%s\nof what was\n%s", protocol, got, want)
		}
	}
}

// merged has each stack with the same labels once.
func merged(t testing.TB, p *profile.Profile) *profile.Profile {
	t.Helper()
	m := map[string]*profile.Sample{}
	q := p.Copy()
	q.Sample = nil
	for _, s := range p.Copy().Sample {
		var k strings.Builder
		for _, l := range s.Location {
			fmt.Fprint(&k, l.ID, " ")
		}
		fmt.Fprint(&k, s.Label, s.NumLabel, s.NumUnit)
		if was := m[k.String()]; was != nil {
			for i, v := range s.Value {
				was.Value[i] += v
			}
			continue
		}
		m[k.String()] = s
		q.Sample = append(q.Sample, s)
	}
	return q
}

// top is what go tool pprof says of a profile, line by line.
func top(t *testing.T, p *profile.Profile) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.pb.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "tool", "pprof", "-top", "-lines", "-nodecount=0", "-symbolize=none", "-sample_index=0", path)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(out), "flat%")
	lines := strings.Split(table, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestHeapIsAnInstant: only what is in use is sent, with no duration.
func TestHeapIsAnInstant(t *testing.T) {
	d := heapProfile(t)
	d.DurationNanos = 5
	p := &export.Profile{Kind: "heap", PID: 1, Service: "s", Data: d}
	all := sent(t, p, Options{})
	got := back(t, all)
	want := encoded(t, d)
	if i := want.SampleType[2].Type; i != "inuse_objects" || d.SampleType[3].Type != "inuse_space" {
		t.Fatalf("the third sample type is %s", i)
	}
	want.SampleType, want.DurationNanos = want.SampleType[2:], 0
	want.Sample = slices.DeleteFunc(want.Sample, func(s *profile.Sample) bool { return s.Value[2] == 0 && s.Value[3] == 0 })
	for _, s := range want.Sample {
		s.Value = s.Value[2:]
	}
	if len(want.Sample) == 0 || len(want.Sample[0].NumLabel["bytes"]) == 0 {
		t.Fatal("the profile is no test")
	}
	if diff := cmp.Diff(describe(merged(t, want)), describe(got)); diff != "" {
		t.Error(diff)
	}
	scope := all.ResourceProfiles().At(0).ScopeProfiles().At(0).Scope()
	if order := scope.Attributes().AsRaw()["pprof.scope.sample_type_order"]; !cmp.Equal(order, []any{int64(2), int64(3)}) {
		t.Errorf("order of sample types: %v", order)
	}
}

// TestAllocsHaveADuration: what was allocated within a window, and not what is in use, which is the heap's.
func TestAllocsHaveADuration(t *testing.T) {
	d := small()
	d.SampleType = []*profile.ValueType{
		{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"}, {Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"},
	}
	for _, s := range d.Sample {
		s.Value = append(s.Value, 1, 8)
	}
	d.DefaultSampleType = "alloc_space"
	s := fake.Start(t, fake.Options{})
	if err := exporter(t, s, Options{Version: "v1"}).Export(t.Context(), &export.Profile{Kind: "allocs", Service: "s", Data: d}); err != nil {
		t.Fatal(err)
	}
	list := s.Profiles()
	if len(list) != 2 || list[0].Kind() != "allocs" || list[0].Duration != 10*time.Second || s.Sum("s", "alloc_space") != 30 || s.Sum("s", "alloc_objects") != 3 {
		t.Errorf("%+v", list)
	}
	scope := s.Taken()[0].ResourceProfiles().At(0).ScopeProfiles().At(0).Scope()
	if scope.Name() != scopeName || scope.Version() != "v1" || scope.Attributes().AsRaw()["pprof.scope.default_sample_type"] != "alloc_space" {
		t.Errorf("scope %s %s %v", scope.Name(), scope.Version(), scope.Attributes().AsRaw())
	}
}

// small is a profile with one of everything.
func small() *profile.Profile {
	m := &profile.Mapping{ID: 1, Start: 0x1000, Limit: 0x2000, Offset: 0x10, File: "/bin/app", BuildID: "abcd01", HasFunctions: true, HasInlineFrames: true}
	golang := &profile.Mapping{ID: 2, File: "/bin/old", BuildID: "a/b/c"}
	kernel := &profile.Mapping{ID: 3, File: "[kernel.kallsyms]", Limit: ^uint64(0)}
	f := &profile.Function{ID: 1, Name: "main.f", SystemName: "main.f", Filename: "/src/main.go", StartLine: 3}
	g := &profile.Function{ID: 2, Name: "main.g", SystemName: "main.g", Filename: "/src/main.go", StartLine: 9}
	c := &profile.Function{ID: 3, Name: "do_it", SystemName: "do_it"}
	loc := &profile.Location{ID: 1, Mapping: m, Address: 0x1100, Line: []profile.Line{{Function: f, Line: 4, Column: 2}, {Function: g, Line: 10}}}
	bare := &profile.Location{ID: 2, Mapping: golang, Address: 0x77, IsFolded: true}
	sys := &profile.Location{ID: 3, Mapping: kernel, Address: 0xffffffff81000000, Line: []profile.Line{{Function: c}}}
	native := &profile.Location{ID: 4, Mapping: golang, Address: 0x99, Line: []profile.Line{{Function: c}}}
	lost := &profile.Location{ID: 5, Line: []profile.Line{{Function: &profile.Function{ID: 4, Name: "[lost]"}}}}
	return &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10, TimeNanos: time.Now().Add(-time.Minute).UnixNano(), DurationNanos: int64(10 * time.Second),
		Mapping: []*profile.Mapping{m, golang, kernel}, Function: []*profile.Function{f, g, c, lost.Line[0].Function}, Location: []*profile.Location{loc, bare, sys, native, lost},
		Comments: []string{"one", "two"}, DropFrames: "d.*", KeepFrames: "k", DocURL: "https://example.org/doc",
		Sample: []*profile.Sample{
			{Location: []*profile.Location{sys, loc, bare, native}, Value: []int64{1, 10}, Label: map[string][]string{"k": {"v"}}},
			{Location: []*profile.Location{lost, loc}, Value: []int64{2, 20}, NumLabel: map[string][]int64{"bytes": {128}}, NumUnit: map[string][]string{"bytes": {"bytes"}}},
		},
	}
}

func TestEverythingComesBack(t *testing.T) {
	d := small()
	got := back(t, sent(t, &export.Profile{Kind: "cpu", Service: "s", Data: d}, Options{}))
	if diff := cmp.Diff(describe(encoded(t, d)), describe(got)); diff != "" {
		t.Error(diff)
	}
}

func TestFrameTypes(t *testing.T) {
	all := sent(t, &export.Profile{Kind: "cpu", Service: "s", Data: small()}, Options{})
	b := &backer{t: t, d: all.Dictionary()}
	got := map[string]string{}
	for _, l := range all.Dictionary().LocationTable().All() {
		kind := ""
		if a, ok := b.attributes(l.AttributeIndices())["profile.frame.type"]; ok {
			kind = a.Value().Str()
		}
		got[fmt.Sprintf("%#x", l.Address())] = kind
	}
	want := map[string]string{"0x1100": "go", "0x77": "", "0xffffffff81000000": "kernel", "0x99": "native", "0x0": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBuildIDs: a GNU build ID is not called Go's, nor the other way round.
func TestBuildIDs(t *testing.T) {
	all := sent(t, &export.Profile{Kind: "cpu", Service: "s", Data: small()}, Options{})
	b := &backer{t: t, d: all.Dictionary()}
	got := map[string]string{}
	for _, m := range all.Dictionary().MappingTable().All() {
		for k, a := range b.attributes(m.AttributeIndices()) {
			if strings.Contains(k, "build_id") {
				got[b.text(m.FilenameStrindex())] = k + "=" + a.Value().Str()
			}
		}
	}
	want := map[string]string{"/bin/app": "process.executable.build_id.gnu=abcd01", "/bin/old": "process.executable.build_id.go=a/b/c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLabels: of every form that the format permits.
func TestLabels(t *testing.T) {
	const trace, span = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
	for name, c := range map[string]struct {
		label map[string][]string
		num   map[string][]int64
		unit  map[string][]string
		want  string // attributes, then the link
	}{
		"texts":              {label: map[string][]string{"b": {"2"}, "a": {"1"}}, want: "a=Str:1[] b=Str:2[] link 0"},
		"several texts":      {label: map[string][]string{"a": {"1", "2"}}, want: `a=Slice:["1","2"][] link 0`},
		"a number":           {num: map[string][]int64{"n": {5}}, want: "n=Int:5[] link 0"},
		"a number of bytes":  {num: map[string][]int64{"n": {5}}, unit: map[string][]string{"n": {"bytes"}}, want: "n=Int:5[By] link 0"},
		"another unit":       {num: map[string][]int64{"n": {5}}, unit: map[string][]string{"n": {"apples"}}, want: "n=Int:5[apples] link 0"},
		"numbers":            {num: map[string][]int64{"n": {5, -6}}, unit: map[string][]string{"n": {"seconds", "seconds"}}, want: "n=Slice:[5,-6][s] link 0"},
		"units that differ":  {num: map[string][]int64{"n": {5, 6}}, unit: map[string][]string{"n": {"seconds", "bytes"}}, want: "n=Slice:[5,6][] link 0"},
		"text and number":    {label: map[string][]string{"x": {"1"}}, num: map[string][]int64{"x": {1}}, want: `x=Slice:["1",1][] link 0`},
		"a span":             {label: map[string][]string{"trace_id": {trace}, "span_id": {span}, "a": {"1"}}, want: "a=Str:1[] link " + trace + "/" + span},
		"a span in capitals": {label: map[string][]string{"trace_id": {strings.ToUpper(trace)}, "span_id": {span}}, want: "link " + trace + "/" + span},
		"half of a span":     {label: map[string][]string{"span_id": {span}}, want: "span_id=Str:" + span + "[] link 0"},
		"no span":            {label: map[string][]string{"trace_id": {strings.Repeat("0", 32)}, "span_id": {span}}, want: "span_id=Str:" + span + "[] trace_id=Str:" + strings.Repeat("0", 32) + "[] link 0"},
		"no hex":             {label: map[string][]string{"trace_id": {trace[:31] + "g"}, "span_id": {span}}, want: "span_id=Str:" + span + "[] trace_id=Str:" + trace[:31] + "g[] link 0"},
	} {
		d := small()
		d.Sample = d.Sample[:1]
		d.Sample[0].Label, d.Sample[0].NumLabel, d.Sample[0].NumUnit = c.label, c.num, c.unit
		all := sent(t, &export.Profile{Kind: "cpu", Service: "s", Data: d}, Options{})
		s := all.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0).Samples().At(0)
		if got := labels(all.Dictionary(), s); got != c.want {
			t.Errorf("%s: %s; should be %s", name, got, c.want)
		}
	}
}

// TestLabelsThatLookAlike: neither a text nor a number of another unit is the same attribute.
func TestLabelsThatLookAlike(t *testing.T) {
	d := small()
	stack := d.Sample[0].Location
	number := func(unit string) *profile.Sample {
		return &profile.Sample{Location: stack, Value: []int64{1, 1}, NumLabel: map[string][]int64{"n": {5}}, NumUnit: map[string][]string{"n": {unit}}}
	}
	text := func(name string) *profile.Sample {
		return &profile.Sample{Location: stack, Value: []int64{1, 1}, Label: map[string][]string{name: {"5"}}}
	}
	d.Sample = []*profile.Sample{number("bytes"), number("seconds"), number("none"), text("n"), text("m"), {Location: stack, Value: []int64{1, 1}, NumLabel: map[string][]int64{"n": {5}}}}
	got := back(t, sent(t, &export.Profile{Kind: "cpu", Service: "s", Data: d}, Options{}))
	want := encoded(t, d)
	for _, p := range []*profile.Profile{want, got} { // the unit "seconds" comes back as it is in UCUM
		for _, s := range p.Sample {
			if len(s.NumUnit["n"]) == 1 && s.NumUnit["n"][0] == "s" {
				s.NumUnit["n"][0] = "seconds"
			}
		}
	}
	if diff := cmp.Diff(describe(want), describe(got)); diff != "" || len(got.Sample) != 6 {
		t.Error(diff)
	}
}

func labels(d pprofile.ProfilesDictionary, s pprofile.Sample) string {
	text := ""
	for _, n := range s.AttributeIndices().All() {
		a := d.AttributeTable().At(int(n))
		text += fmt.Sprintf("%s=%v:%s[%s] ", d.StringTable().At(int(a.KeyStrindex())), a.Value().Type(), a.Value().AsString(), d.StringTable().At(int(a.UnitStrindex())))
	}
	if s.LinkIndex() == 0 {
		return text + "link 0"
	}
	l := d.LinkTable().At(int(s.LinkIndex()))
	return text + "link " + l.TraceID().String() + "/" + l.SpanID().String()
}

func TestResource(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for name, c := range map[string]struct {
		p    export.Profile
		want map[string]any
	}{
		"one-shot": {export.Profile{PID: 7, Comm: "app"}, map[string]any{"service.name": "app", "process.pid": int64(7), "process.executable.name": "app", "process.executable.path": "/bin/app"}},
		"nothing":  {export.Profile{}, map[string]any{"service.name": "unknown_service:go", "process.executable.name": "app", "process.executable.path": "/bin/app"}},
		"all": {export.Profile{PID: 7, Service: "shop", Comm: "shop", Labels: list(
			"cgroup", "/a", "comm", "shop", "container_id", "cid", "container_image", "reg:5000/x/y:1.2@"+digest, "container_name", "c", "exe", "/usr/bin/shop", "go_version", "go1.26.7",
			"host", "h", "module", "example.org/shop", "module_version", "v1.2.3", "pid", "7", "systemd_unit", "shop.service", "user", "u", "vcs_revision", "abc", "team", "a", "empty", "",
		)}, map[string]any{
			"service.name": "shop", "process.linux.cgroup": "/a", "comm": "shop", "container.id": "cid", "container.image.name": "reg:5000/x/y", "container.image.tags": []any{"1.2"},
			"container.image.repo_digests": []any{"reg:5000/x/y@" + digest}, "container.name": "c", "process.executable.path": "/usr/bin/shop", "process.executable.name": "shop",
			"process.runtime.version": "go1.26.7", "host.name": "h", "module": "example.org/shop", "service.version": "v1.2.3", "process.pid": int64(7), "systemd_unit": "shop.service",
			"process.owner": "u", "vcs.ref.head.revision": "abc", "team": "a",
		}},
		"pod": {export.Profile{PID: 7, Service: "shop", Labels: list("container_image", "x", "container_name", "c", "exe", "/a", "module_version", "(devel)", "namespace", "n", "pid", "x7", "pod", "p", "pod_label_app", "shop")}, map[string]any{
			"service.name": "shop", "container.image.name": "x", "k8s.container.name": "c", "process.executable.path": "/a", "process.executable.name": "a", "k8s.namespace.name": "n", "pid": "x7", "process.pid": int64(7),
			"k8s.pod.name": "p", "k8s.pod.label.app": "shop", "module_version": "(devel)",
		}},
		"a registry's port": {export.Profile{Service: "s", Labels: list("container_image", "reg:5000/x/y")}, map[string]any{
			"service.name": "s", "container.image.name": "reg:5000/x/y", "process.executable.name": "app", "process.executable.path": "/bin/app",
		}},
		"not UTF-8": {export.Profile{Service: "a\xff", Labels: list("x", "b\xff")}, map[string]any{"service.name": "a\uFFFD", "x": "b\uFFFD", "process.executable.name": "app", "process.executable.path": "/bin/app"}},
	} {
		c.want["process.runtime.name"] = "go"
		c.p.Kind, c.p.Data = "cpu", small()
		rp := sent(t, &c.p, Options{}).ResourceProfiles().At(0)
		if diff := cmp.Diff(c.want, rp.Resource().Attributes().AsRaw()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func list(pairs ...string) (l []export.Label) {
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, export.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return l
}

// TestProfileStaysAsItIs: others send it, too.
func TestProfileStaysAsItIs(t *testing.T) {
	for _, kind := range []string{"cpu", "heap"} {
		d := small()
		if kind == "heap" {
			d.SampleType[1].Type = "inuse_space"
		}
		before := d.String()
		p := &export.Profile{Kind: kind, Service: "s", Data: d}
		sent(t, p, Options{})
		if d.String() != before || p.Encoded != nil {
			t.Errorf("%s: it was changed", kind)
		}
	}
}

// TestSpooledProfile: one that comes from the disk is the same as one that does not.
func TestSpooledProfile(t *testing.T) {
	d := small()
	p := &export.Profile{Kind: "cpu", Service: "s", PID: 3, StartTicks: 4, Labels: list("a", "b"), Data: d}
	e, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{})
	spooled := &export.Profile{Kind: "cpu", Service: "s", PID: 3, StartTicks: 4, Labels: list("a", "b"), Encoded: e}
	unencoded := &export.Profile{Kind: "cpu", Service: "s", PID: 3, StartTicks: 4, Labels: list("a", "b"), Data: d}
	for _, p := range []*export.Profile{p, spooled, unencoded} {
		if err := x.Export(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if list := s.Profiles(); len(list) != 2 || list[0].Times != 3 || list[1].Times != 3 {
		t.Errorf("sent three times, and not the same: %+v", list)
	}
}

// TestIDs: what differs in anything that tells profiles apart has an id of its own (the server refuses one that is used twice).
func TestIDs(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{})
	base := export.Profile{Kind: "cpu", Service: "s", PID: 3, StartTicks: 4, Comm: "c", Labels: list("a", "b")}
	d := small()
	variants := []func(*export.Profile){
		func(*export.Profile) {},
		func(p *export.Profile) { p.Service = "t" },
		func(p *export.Profile) { p.PID = 5 },
		func(p *export.Profile) { p.Labels = list("a", "c") },
		func(p *export.Profile) { p.Labels = list("a", "b", "c", "d") },
		func(p *export.Profile) { p.Data.TimeNanos++ },
	}
	for i, vary := range variants {
		p := base
		p.Data = d.Copy()
		vary(&p)
		if err := x.Export(t.Context(), &p); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	ids := map[[16]byte]bool{}
	for _, p := range s.Profiles() {
		ids[p.ID] = true
	}
	if len(ids) != 2*len(variants) {
		t.Errorf("%d ids", len(ids))
	}
}

// TestCompressed: texts that repeat themselves are not worth their bytes.
func TestCompressed(t *testing.T) {
	for _, protocol := range protocols {
		s := fake.Start(t, fake.Options{})
		if err := exporter(t, s, Options{Protocol: protocol}).Export(t.Context(), &export.Profile{Kind: "cpu", Service: "s", Data: many(500)}); err != nil {
			t.Fatal(err)
		}
		if n := s.Compressed(); n != 1 {
			t.Errorf("%s: %d of 1 request were compressed", protocol, n)
		}
	}
}

// TestNothingToSend: an empty window costs no request.
func TestNothingToSend(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{})
	d := small()
	d.Sample = nil
	if err := x.Export(t.Context(), &export.Profile{Kind: "cpu", Service: "s", Data: d}); err != nil || s.Requests() != 0 {
		t.Errorf("%v, %d requests", err, s.Requests())
	}
}

func TestWhatCannotBeSent(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{})
	noPeriod := small()
	noPeriod.PeriodType = nil
	for name, p := range map[string]*export.Profile{
		"no data":        {Kind: "cpu"},
		"no period":      {Kind: "cpu", Data: noPeriod},
		"garbage":        {Kind: "cpu", Encoded: &export.Encoded{Gzip: []byte("x")}},
		"nothing in use": {Kind: "heap", Data: small()},
	} {
		e := export.RetryOf(x.Export(t.Context(), p))
		if e == nil || e.Retry != export.Never || e.Reason != "invalid" || s.Requests() != 0 {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
