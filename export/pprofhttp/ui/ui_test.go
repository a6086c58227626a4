package ui

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestIndex(t *testing.T) {
	s := serve(t, shopHost())
	a := s.get(t, "/")
	for _, want := range []string{
		"<title>pprofd on node-7</title>", `href="/pid/4242/ui/profile/flamegraph?seconds=5"`, `href="/pid/4242/debug/pprof/profile?seconds=30"`,
		`href="/service/shop/ui/heap/flamegraph"`, `href="/service/mail%2Fout/debug/pprof/allocs"`, "<bdi>go1.26.7</bdi>", "<dt>systemd_unit</dt><dd><bdi>shop.service</bdi></dd>",
		`href="/targets"`, `href="/debug/pprof/"`,
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("lacks %s", want)
		}
	}
	if a.code != 200 || strings.Contains(a.body, "<script") || strings.Contains(a.body, "/service/../") || strings.Contains(a.body, "/service//") {
		t.Errorf("%d %s", a.code, a.body)
	}
	if policy := a.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") {
		t.Error(policy)
	}
	if a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", a.header)
	}
	if a := s.get(t, "/nothing"); a.code != 404 {
		t.Errorf("%+v", a)
	}
	s.token = "wrong"
	if a := s.get(t, "/"); a.code != 401 || strings.Contains(a.body, "shop") {
		t.Errorf("%+v", a)
	}
}

func rows(body string) (n int) {
	_, body, _ = strings.Cut(body, `id="processes"`)
	return strings.Count(body, `<td class="go">`)
}

func TestIndexFilterAndPages(t *testing.T) {
	h := shopHost()
	s := serve(t, h)
	for query, want := range map[string]int{
		"": 7, "shop": 3, "SHOP 4243": 1, "service_name=search": 1, "systemd_unit=mail": 1, "nobody": 0, "pid=4244": 1, "go1.26 node-7 server": 7, `"><x`: 0,
	} {
		if a := s.get(t, "/?q="+url.QueryEscape(query)); a.code != 200 || rows(a.body) != want {
			t.Errorf("%q: %d rows, want %d", query, rows(a.body), want)
		}
	}
	for i := range 1200 {
		h.procs = append(h.procs, pprofhttp.Process{PID: 10000 + i, Service: "many", Comm: fmt.Sprint("c", i)})
	}
	path, seen := "/?q=many", 0
	for n := 0; path != "" && n < 5; n++ {
		a := s.get(t, path)
		seen += rows(a.body)
		path = ""
		if m := regexp.MustCompile(`rel="next" href="([^"]*)"`).FindStringSubmatch(a.body); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if seen != 1200 {
		t.Errorf("the pages have %d processes", seen)
	}
	if a := s.get(t, "/?from=-5"); rows(a.body) != 500 {
		t.Errorf("%d rows", rows(a.body))
	}
	if a := s.get(t, "/?from=999999"); rows(a.body) != 1 {
		t.Errorf("%d rows", rows(a.body))
	}
}

func TestNoProcesses(t *testing.T) {
	s := serve(t, &host{})
	if a := s.get(t, "/"); a.code != 200 || !strings.Contains(a.body, "No Go process is profiled") {
		t.Errorf("%+v", a)
	}
}

// A profile is taken once, and is then what the address says, in every view.
func TestAProfileIsTakenOnce(t *testing.T) {
	h := shopHost()
	s := serve(t, h)
	path, a := s.follow(t, "/pid/4242/ui/profile/flamegraph?seconds=5&si=samples")
	if a.code != 200 || !regexp.MustCompile(`^/pid/4242/ui/profile@\d{8}T\d{6}\.\d{3}/flamegraph\?si=samples$`).MatchString(path) {
		t.Fatalf("%s: %d %s", path, a.code, a.body)
	}
	if !strings.Contains(a.body, "main.(*cart).total") || !strings.Contains(a.body, "CPU time of 5 s, ") || !strings.Contains(a.body, "process 4242") {
		t.Error("the page lacks its function, or the line above")
	}
	if policy := a.header.Get("Content-Security-Policy"); !regexp.MustCompile(`^default-src 'none'; script-src 'nonce-[A-Z2-7]{26}';`).MatchString(policy) {
		t.Error(policy)
	}
	dir := path[:strings.LastIndex(path, "/")+1]
	for _, view := range []string{"top", "peek", "graph", "flamegraph"} {
		if view == "graph" {
			needs.Tool(t, "dot")
		}
		if a := s.get(t, dir+view); a.code != 200 || !strings.Contains(a.body, "main.pay") {
			t.Errorf("%s: %d", view, a.code)
		}
	}
	if got := h.requests(); len(got) != 1 || got[0] != (pprofhttp.Request{PID: 4242, Kind: "profile", Duration: 5 * time.Second}) {
		t.Errorf("%+v", got)
	}
	a = s.get(t, dir+"download")
	if p, err := profile.Parse(strings.NewReader(a.body)); err != nil || len(p.Sample) != 3 || p.Mapping[0].File != "/srv/shop" ||
		!strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="profile-4242-2`) {
		t.Errorf("download: %v %v", err, a.header)
	}
	if _, a := s.follow(t, dir); a.code != 200 || !strings.Contains(a.body, "stackViewer(") {
		t.Error("pprof's own link to the beginning leads nowhere")
	}
	if a := s.get(t, "/pid/4242/ui/"); !strings.Contains(a.body, dir+"top") {
		t.Error("what is kept is not listed")
	}
	if a := s.get(t, strings.Replace(dir, "4242", "4243", 1)+"top"); a.code != 410 {
		t.Errorf("the profile of another process: %d", a.code)
	}
}

func TestServiceAndCompare(t *testing.T) {
	h := shopHost()
	n := int64(0)
	h.make = func(r pprofhttp.Request) (*profile.Profile, error) {
		n++
		return stacksOf(r.Kind, stack{frames: []string{"main.grows", "main.main"}, value: 10 * n}, stack{frames: []string{"main.stays", "main.main"}, value: 5}), nil
	}
	s := serve(t, h)
	path, a := s.follow(t, "/service/mail%2Fout/ui/heap/top?base=heap&sort=cum")
	if a.code != 200 || !regexp.MustCompile(`^/service/mail%2Fout/ui/heap@[^~]*~heap@[^/]*/top\?sort=cum$`).MatchString(path) {
		t.Fatalf("%s %d %s", path, a.code, a.body)
	}
	if !strings.Contains(a.body, `"Name":"main.grows","InlineLabel":"","Flat":100000000`) || strings.Contains(a.body, `"Flat":50000000`) {
		t.Error("it is no difference")
	}
	if got := h.requests(); len(got) != 2 || got[0] != (pprofhttp.Request{Service: "mail/out", Kind: "heap"}) {
		t.Errorf("%+v", got)
	}
	names := regexp.MustCompile(`heap@[0-9T.]+`).FindAllString(path, 2)
	path2, a := s.follow(t, "/service/mail%2Fout/ui/compare?of="+names[1]+"&base="+names[0])
	if a.code != 200 || !strings.HasSuffix(path2, names[1]+"~"+names[0]+"/flamegraph") || !strings.Contains(a.body, "less memory in use") {
		t.Errorf("%s %d", path2, a.code)
	}
	if _, a := s.follow(t, "/service/mail%2Fout/ui/"+names[1]+"/top?base="+names[0]); a.code != 200 || !strings.Contains(a.body, `"Flat":-100000000`) {
		t.Errorf("%d", a.code)
	}
	if a := s.get(t, path[:strings.LastIndex(path, "/")]+"/download"); a.code != 200 {
		t.Errorf("%d", a.code)
	} else if p, err := profile.Parse(strings.NewReader(a.body)); err != nil || len(p.Sample) == 0 {
		t.Error(err)
	}
	if _, a := s.follow(t, "/service/mail%2Fout/ui/"+names[1]+"/top?base=profile&seconds=1"); a.code != 400 {
		t.Errorf("heap less CPU: %d %s", a.code, a.body)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	h := shopHost()
	s := serve(t, h)
	path, _ := s.follow(t, "/pid/4242/ui/heap/top")
	dir := path[:strings.LastIndex(path, "/")+1]
	for path, want := range map[string]int{
		"/pid/1/ui/": 404, "/pid/x/ui/": 404, "/pid/-1/ui/heap/top": 404, "/service/nobody/ui/": 404, "/service/%3Cx%3E/ui/": 404,
		"/pid/4242/ui/threadcreate/top": 404, "/pid/4242/ui/heap@20200101T000000.000/top": 410, "/pid/4242/ui/heap@x/top": 404,
		dir + "source": 404, dir + "disasm": 404, dir + "weblist": 404, dir + "saveconfig?config=x": 404, dir + "deleteconfig?config=x": 404,
		dir + "flamegraphold": 404, dir + "top/": 404, dir + "top?f=%28": 400, dir + "top?f=" + strings.Repeat("x", maxQuery): 414,
		"/pid/4242/ui/profile/top?seconds=0": 400, "/pid/4242/ui/profile/top?seconds=x": 400, "/pid/4242/ui/profile/top?seconds=301": 400,
		"/pid/4242/ui/heap/source": 404, "/pid/4242/ui/heap/": 303, "/pid/4242/ui/compare": 404, "/pid/4242/ui/heap~x/top": 404,
	} {
		if a := s.get(t, path); a.code != want {
			t.Errorf("%s: %d, want %d: %s", path, a.code, want, a.body)
		}
	}
	path, _ = s.follow(t, "/service/mail%2Fout/ui/heap/top")
	if a := s.get(t, path+"?f=%28"); a.code != http.StatusBadRequest || !strings.Contains(a.body, `href="`+path+`"`) || !strings.HasPrefix(path, "/service/mail%2Fout/") {
		t.Errorf("the page leads elsewhere than to %s: %d %s", path, a.code, a.body)
	}
	taken := len(h.requests())
	for err, want := range map[error]int{
		pprofhttp.NotFound("it has ended"):      404,
		pprofhttp.Busy(time.Minute, "too many"): 503,
		errors.New("<b>broken</b>"):             500,
	} {
		h.make = func(pprofhttp.Request) (*profile.Profile, error) { return nil, err }
		a := s.get(t, "/pid/4242/ui/allocs/top")
		if a.code != want || strings.Contains(a.body, "<b>broken") || !strings.Contains(a.body, `href="/pid/4242/ui/"`) {
			t.Errorf("%v: %d %s", err, a.code, a.body)
		}
	}
	if got := h.requests(); taken != 2 || len(got) != taken+3 {
		t.Errorf("profiles are taken for what is wrong: %+v", got)
	}
}

func TestWithoutDot(t *testing.T) {
	s := serve(t, shopHost())
	t.Setenv("PATH", t.TempDir())
	path, a := s.follow(t, "/pid/4242/ui/heap/graph")
	if a.code != http.StatusNotImplemented || !strings.Contains(a.body, "install graphviz") {
		t.Errorf("%d %s", a.code, a.body)
	}
	if a := s.get(t, "/pid/4242/ui/"); !strings.Contains(a.body, "install graphviz") || strings.Contains(a.body, "/graph\"") {
		t.Error("the page does not say that there are no graphs")
	}
	if a := s.get(t, strings.Replace(path, "/graph", "/top", 1)); a.code != 200 || !strings.Contains(a.body, "#graphbtn {") && !strings.Contains(a.body, ", #graphbtn") {
		t.Errorf("%d", a.code)
	}
}

// A process that has gone can be looked at as long as its profiles are kept; another of its PID is another.
func TestAProcessThatHasGone(t *testing.T) {
	h := shopHost()
	s := serve(t, h)
	path, _ := s.follow(t, "/pid/4242/ui/heap/top")
	first := h.procs[0]
	h.procs = h.procs[1:]
	if a := s.get(t, path); a.code != 200 {
		t.Errorf("%d", a.code)
	}
	if a := s.get(t, "/pid/4242/ui/"); a.code != 200 || !strings.Contains(a.body, "has ended") {
		t.Errorf("%d %s", a.code, a.body)
	}
	first.Start++
	h.procs = slices.Insert(h.procs, 0, first)
	if a := s.get(t, "/pid/4242/ui/"); !strings.Contains(a.body, "of an earlier process") {
		t.Error("it is taken for the same process")
	}
	s.clock = func() time.Time { return time.Now().Add(keepTime) }
	if a := s.get(t, path); a.code != 410 || !strings.Contains(a.body, `href="/pid/4242/ui/heap/top"`) {
		t.Errorf("%d %s", a.code, a.body)
	}
}

func TestShelf(t *testing.T) {
	s := newShelf()
	now := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	put := func(pid, size int, at time.Time) *shot {
		n := &shot{of: owner{PID: pid}, kind: "heap", data: bytes.Repeat([]byte{1}, size)}
		s.add(n, at)
		return n
	}
	a, b := put(1, 1, now), put(1, 1, now)
	if a.name() == b.name() || s.last("/pid/1", now) != b || s.get("/pid/1", a.name(), now) != a || s.get("/pid/2", a.name(), now) != nil {
		t.Errorf("%s %s", a.name(), b.name())
	}
	later := now.Add(keepTime - time.Second)
	if s.get("/pid/1", a.name(), later) != a {
		t.Error("forgotten too early")
	}
	if later = later.Add(2 * time.Second); s.get("/pid/1", b.name(), later) != nil || s.get("/pid/1", a.name(), later) != a {
		t.Error("not forgotten, or with what was looked at")
	}
	for i := range 40 {
		put(2, keepBytes/8, later)
		if s.bytes > keepBytes || len(s.shots) > keepCount {
			t.Fatalf("%d: %d profiles, %d bytes", i, len(s.shots), s.bytes)
		}
	}
	if len(s.shots) != 8 {
		t.Errorf("%d are kept", len(s.shots))
	}
	for range keepCount + 50 {
		put(3, 1, later)
	}
	if len(s.shots) != keepCount {
		t.Errorf("%d are kept", len(s.shots))
	}
	s.sweep.Stop()
	s.shots[len(s.shots)-1].looked = time.Now()
	s.shots[0].looked = time.Time{}
	s.swept()
	if len(s.shots) != 1 && s.shots[0].looked.IsZero() || s.sweep == nil {
		t.Error("what nobody asks for stays")
	}
	s.sweep.Stop()
}

// Names that are markup are text, on every page that has no browser to show it.
func TestNamesAreText(t *testing.T) {
	const evil = `"><img src=x onerror=alert(1)></script><script>alert(2)</script>'&{{.}}`
	h := &host{make: shopProfile, procs: []pprofhttp.Process{{PID: 7, Service: evil, Comm: evil, Labels: []export.Label{{Name: evil, Value: evil}, {Name: "go_version", Value: evil}}}}}
	s := serve(t, h)
	for _, path := range []string{"/", "/?q=" + url.QueryEscape(evil), "/pid/7/ui/", "/service/" + url.PathEscape(evil) + "/ui/", "/service/" + url.PathEscape(evil+"x") + "/ui/",
		"/pid/7/ui/" + url.PathEscape(evil) + "/top", "/pid/7/ui/heap/" + url.PathEscape(evil), "/pid/7/ui/heap/top?seconds=" + url.QueryEscape(evil)} {
		if _, a := s.follow(t, path); strings.Contains(a.body, "<img") || strings.Contains(a.body, "<script") {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	if _, a := s.follow(t, "/pid/7/ui/heap/top"); strings.Contains(a.body, "<img") || a.code != 200 {
		t.Errorf("%d %s", a.code, a.body)
	}
}
