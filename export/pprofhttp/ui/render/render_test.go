package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/driver"
	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

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

// watched tells which of the files were opened. It is asked once.
func watched(t *testing.T, files ...string) (opened func() int) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, f := range files {
		if _, err := unix.InotifyAddWatch(fd, f, unix.IN_OPEN|unix.IN_ACCESS|unix.IN_MODIFY|unix.IN_CREATE); err != nil {
			t.Fatal(f, err)
		}
	}
	return func() int {
		b := make([]byte, 1<<16)
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EAGAIN) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return n / unix.SizeofInotifyEvent
	}
}

// naming is a profile that names file wherever a profile can name one.
func naming(t *testing.T, file string) []byte {
	return encode(t, func(p *profile.Profile) {
		up := strings.Repeat("../", 12)
		p.Mapping[0].File, p.Mapping[0].BuildID = file, up+filepath.Dir(file)
		p.Mapping = append(p.Mapping, &profile.Mapping{ID: 2, Start: 0x900000, Limit: 0xa00000, File: up + file, BuildID: "ab" + file, KernelRelocationSymbol: file})
		for _, f := range p.Function {
			f.Filename, f.Name, f.SystemName = file, file, file
		}
		p.Comments, p.DocURL = []string{file}, "file://"+file
		dot := `x" image="` + file + `" shapefile="` + file + `" URL="file://` + file // what pprof writes for dot
		p.Function[0].Filename = filepath.Base(dot)
		for _, s := range p.Sample {
			s.Label = map[string][]string{"file": {file, dot}, dot: {file}}
			s.NumLabel, s.NumUnit = map[string][]int64{dot: {5}, "bytes": {7}}, map[string][]string{dot: {"count"}, "bytes": {dot}}
		}
	}, map[string]int64{"a;b": 60, "c;b": 30})
}

// Paths in a profile come from the target. Here they lead to a file that only root may read, and to one that is watched.
func TestNothingThatAProfileNamesIsOpened(t *testing.T) {
	needs.Root(t)
	needs.Tool(t, "dot")
	home := t.TempDir()
	secret, settings := filepath.Join(home, "secret.go"), filepath.Join(home, "pprof", "settings.json")
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("HOME", home)
	t.Setenv("PPROF_BINARY_PATH", home+":/")
	t.Setenv("PPROF_TOOLS", home)
	if err := errors.Join(os.Mkdir(filepath.Dir(settings), 0o700),
		os.WriteFile(secret, []byte("package secret\n\nfunc tell() {}\n"), 0o600),
		os.WriteFile(settings, []byte(`{"configs":[{"name":"mine","hide":"cart"}]}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	files := []string{secret, "/etc/shadow", settings, home, filepath.Dir(settings)}
	// The driver as it is opens them: else this test shows nothing.
	opened := watched(t, files...)
	asItIs(t, naming(t, secret))
	if n := opened(); n < 2 { // the source, and the settings
		t.Fatalf("pprof's own server opens %d files: the test does not see it", n)
	}
	dot := exec.Command("dot", "-Tsvg")
	dot.Stdin = strings.NewReader(`digraph { x [image="` + secret + `"] }`)
	if err := dot.Run(); err != nil || opened() == 0 {
		t.Fatalf("dot opens no file that its input names: the test does not see it (%v)", err)
	}
	opened = watched(t, files...)
	r := New(Program()...)
	for _, file := range []string{secret, "/etc/shadow"} {
		data := naming(t, file)
		q := url.QueryEscape(file)
		for _, view := range []string{Flamegraph, Graph, Top, Peek, Download, "source", "disasm", "weblist", "saveconfig", "deleteconfig"} {
			for _, query := range []string{
				"", "f=" + q, "f=.&g=lines", "f=.&g=addresses", "g=files&s=" + q, "sf=" + q + "&h=" + q, "output=" + q, "source_path=" + q, "trim_path=/",
				"tools=" + q, "config=mine", "symbolize=local&buildid=" + q, "tagroot=file&tf=" + q, "base=" + q + "&diff_base=" + q, "intel=t&list=.&weblist=.&disasm=.",
				"nf=0&ef=0&trim=f&unit=" + url.QueryEscape(`x" image="`+file), "tagleaf=file,bytes&g=lines&nf=0",
			} {
				o := Order{View: view, Query: query, Profile: data}
				if query == "" {
					o.Base = shop(t)
				}
				p, err := r.Draw(t.Context(), o)
				if err == nil && (bytes.Contains(p.Body, []byte("func tell")) || bytes.Contains(p.Body, []byte("root:")) || bytes.Contains(p.Body, []byte(">mine<"))) {
					t.Errorf("%s?%s shows what is in the file", view, query)
				}
				links := view == Graph && err == nil && (bytes.Contains(p.Body, []byte("<image")) || bytes.Contains(p.Body, []byte("xlink:href")))
				if refused := err == nil && p.Status != 200 && (view != Peek || p.Status != 400); refused || links {
					t.Errorf("%s?%s: %d, or with links: %.300s", view, query, p.Status, p.Body)
				}
			}
		}
	}
	if n := opened(); n > 0 {
		t.Errorf("files were touched %d times", n)
	}
}

// asItIs asks pprof's own server for the source.
func asItIs(t *testing.T, data []byte) {
	t.Helper()
	p, err := profile.ParseData(data)
	if err != nil {
		t.Fatal(err)
	}
	err = driver.PProf(&driver.Options{
		Fetch: profiles{profileName: p}, Flagset: flags{}, UI: silent{}, Sym: noSymbols{}, Obj: noObjects{},
		HTTPServer: func(args *driver.HTTPServerArgs) error {
			for _, path := range []string{"/source?f=.", "/top"} {
				ask(t, args.Handlers, path)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The process is nobody's, and has little of the environment: its error tells.
func TestTheProcessHasNoRights(t *testing.T) {
	needs.Root(t)
	t.Setenv("PPROFD_TEST_SECRET", "secret")
	_, err := New("/bin/sh", "-c", `echo uid $(/usr/bin/id -u), groups $(/usr/bin/id -G), $PPROFD_TEST_SECRET $HOME >&2; exit 1`).Draw(t.Context(), Order{View: Top})
	if err == nil || !strings.HasSuffix(err.Error(), "uid 65534, groups 65534, /dev/null") {
		t.Errorf("%v", err)
	}
}

// It ends where too much is asked of it.
func TestAPageMayCostSoMuch(t *testing.T) {
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
