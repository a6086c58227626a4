package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

var start = time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)

// encode makes a CPU profile of stacks, leaf first, with their values in samples of 10 ms.
func encode(t testing.TB, edit func(*profile.Profile), stacks map[string]int64) []byte {
	t.Helper()
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7, TimeNanos: start.UnixNano(), DurationNanos: 1e10,
		Mapping: []*profile.Mapping{{ID: 1, Start: 0x400000, Limit: 0x800000, File: "/srv/shop", BuildID: "b1", HasFunctions: true}},
	}
	known := map[string]*profile.Location{}
	for stack, n := range stacks {
		s := &profile.Sample{Value: []int64{n, n * 1e7}}
		for name := range strings.SplitSeq(stack, ";") {
			l := known[name]
			if l == nil {
				id := uint64(len(known) + 1)
				f := &profile.Function{ID: id, Name: name, SystemName: name, Filename: "/src/" + name + ".go"}
				l = &profile.Location{ID: id, Mapping: p.Mapping[0], Address: 0x400000 + id, Line: []profile.Line{{Function: f, Line: int64(id)}}}
				known[name] = l
				p.Function, p.Location = append(p.Function, f), append(p.Location, l)
			}
			s.Location = append(s.Location, l)
		}
		p.Sample = append(p.Sample, s)
	}
	if edit != nil {
		edit(p)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func shop(t testing.TB) []byte {
	return encode(t, nil, map[string]int64{"main.cart;main.main": 60, "main.pay;main.main": 30, "main.idle;main.main": 10})
}

func drawn(t testing.TB, r *Renderer, o Order) *Page {
	t.Helper()
	o.Nonce = "N0NCE"
	p, err := r.Draw(t.Context(), o)
	if err != nil {
		t.Fatalf("%s?%s: %v", o.View, o.Query, err)
	}
	return p
}

func TestViews(t *testing.T) {
	needs.Tool(t, "dot")
	r := New(Program()...)
	for view, want := range map[string][]string{
		Flamegraph: {`"FullName":"main.cart"`, "stackViewer(", `"Value":600000000`},
		Graph:      {"<svg", "main.cart", "600ms (60.00%)"},
		Top:        {`"Name":"main.pay"`, `"Flat":300000000`},
		Peek:       {"main.idle", "100ms 10.00%"},
	} {
		p := drawn(t, r, Order{View: view, Profile: shop(t), Head: "<meta name=x>", Body: "<p>bar</p>"})
		text := string(p.Body)
		if p.Status != 200 || p.Type != "text/html; charset=utf-8" {
			t.Errorf("%s: %d %s", view, p.Status, p.Type)
		}
		for _, w := range append(want, "<meta name=x></head>", "<body><p>bar</p>", "shop cpu") {
			if !strings.Contains(text, w) {
				t.Errorf("%s lacks %s", view, w)
			}
		}
		if n := strings.Count(text, `<script nonce="N0NCE">`); n != scripts[view] || strings.Contains(text, "<script>") {
			t.Errorf("%s: %d scripts with nonce", view, n)
		}
	}
	p := drawn(t, r, Order{View: Download, Profile: shop(t)})
	if d, err := profile.ParseData(p.Body); err != nil || len(d.Sample) != 3 {
		t.Errorf("download: %v", err)
	}
}

func TestCompare(t *testing.T) {
	r := New(Program()...)
	base := encode(t, nil, map[string]int64{"main.cart;main.main": 20, "main.pay;main.main": 30, "main.gone;main.main": 5})
	p := drawn(t, r, Order{View: Top, Profile: shop(t), Base: base})
	for _, want := range []string{`"Name":"main.cart","InlineLabel":"","Flat":400000000`, `"Name":"main.gone","InlineLabel":"","Flat":-50000000`} {
		if !strings.Contains(string(p.Body), want) {
			t.Errorf("lacks %s", want)
		}
	}
	other := encode(t, func(p *profile.Profile) { p.SampleType[0].Type, p.SampleType[1].Type = "objects", "space" }, map[string]int64{"a;b": 1})
	if p := drawn(t, r, Order{View: Top, Profile: shop(t), Base: other}); p.Status != 400 || !strings.Contains(string(p.Body), "sample") {
		t.Errorf("two that cannot be compared: %d %s", p.Status, p.Body)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	r := New(Program()...)
	if p := drawn(t, r, Order{View: Top, Query: "f=%28", Profile: shop(t)}); p.Status != 400 || !strings.Contains(string(p.Body), "regexp") {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	if p := drawn(t, r, Order{View: Top, Query: "f=nobody", Profile: shop(t)}); !strings.Contains(string(p.Body), "Focus expression matched no samples") {
		t.Error("a focus that matches nothing is not told of")
	}
	for _, view := range []string{"source", "disasm", "saveconfig", "deleteconfig", "weblist", "", "../top"} {
		if _, err := r.Draw(t.Context(), Order{View: view, Profile: shop(t)}); err == nil {
			t.Errorf("%q is drawn", view)
		}
	}
	if _, err := r.Draw(t.Context(), Order{View: Top, Profile: []byte("no profile")}); err == nil {
		t.Error("what is no profile is drawn")
	}
	if _, err := New("/does/not/exist").Draw(t.Context(), Order{View: Top, Profile: shop(t)}); !errors.Is(err, errNotStarted) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Draw(ctx, Order{View: Top, Profile: shop(t)}); err == nil {
		t.Error("drawn for nobody")
	}
}

// The driver's configuration belongs to its process. Pages with different options at once are what each is alone.
func TestPagesDoNotAffectEachOther(t *testing.T) {
	r := New(Program()...)
	r.slots = make(chan struct{}, 8)
	small, large := shop(t), encode(t, nil, map[string]int64{"x.a;x.main": 7, "x.b;x.main": 1})
	orders := []Order{
		{View: Top, Profile: small}, {View: Top, Query: "f=pay&unit=ms&sort=cum", Profile: small}, {View: Top, Query: "si=samples&rel=t", Profile: large},
		{View: Flamegraph, Query: "i=cart&g=lines", Profile: small}, {View: Flamegraph, Profile: large}, {View: Peek, Query: "f=cart&n=1", Profile: small},
		{View: Top, Query: "trim=f&h=idle&noinlines=t", Profile: small, Base: large}, {View: Top, Profile: large, Base: small},
	}
	alone := make([]*Page, len(orders))
	for i, o := range orders {
		alone[i] = drawn(t, r, o)
		for _, other := range alone[:i] {
			if bytes.Equal(other.Body, alone[i].Body) {
				t.Fatalf("%s?%s is what another is: the options do nothing", o.View, o.Query)
			}
		}
	}
	var all sync.WaitGroup
	for n := range 6 * len(orders) {
		all.Go(func() {
			i := n % len(orders)
			o := orders[i]
			o.Nonce = "N0NCE"
			p, err := r.Draw(t.Context(), o)
			if err != nil || !bytes.Equal(p.Body, alone[i].Body) {
				t.Errorf("%s?%s differs while others are drawn: %v", o.View, o.Query, err)
			}
		})
	}
	all.Wait()
}

// It ends where too much is asked of it.
func TestAPageMayCostSoMuch(t *testing.T) {
	if raced {
		t.Skip("the memory of the race detector has no measure")
	}
	r := New(Program()...)
	stacks := map[string]int64{}
	for i := range 60000 {
		var b strings.Builder
		for j := range 24 {
			fmt.Fprintf(&b, "main.f%d;", (i*7919+j*104729)%50000)
		}
		stacks[b.String()+"main.main"] = 1
	}
	huge := encode(t, nil, stacks)
	began := time.Now()
	_, err := r.Draw(t.Context(), Order{View: Flamegraph, Profile: huge})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d KiB of profile: %v after %v", len(huge)>>10, err, time.Since(began))
	}
	if d := time.Since(began); d > maxTime+5*time.Second {
		t.Errorf("after %v", d)
	}
	if p := drawn(t, r, Order{View: Top, Profile: shop(t)}); p.Status != 200 {
		t.Error("no more pages afterwards")
	}
}

// The price of a process for each page, beside the driver in this one.
func BenchmarkPage(b *testing.B) {
	r, data := New(Program()...), shop(b)
	b.Run("process", func(b *testing.B) {
		for b.Loop() {
			drawn(b, r, Order{View: Flamegraph, Profile: data})
		}
	})
	b.Run("here", func(b *testing.B) {
		b.Setenv("XDG_CONFIG_HOME", "/dev/null")
		for b.Loop() {
			if _, err := draw(Order{View: Flamegraph, Profile: data}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
