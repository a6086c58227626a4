package ui

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/export/pprofhttp/ui/render"
	"github.com/pprofd/pprofd/internal/agent/web"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

// The tests' own program draws the pages.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == render.Arg {
		if err := render.Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaks.Run(m))
}

// host is a source of profiles with a few processes.
type host struct {
	procs []pprofhttp.Process
	make  func(pprofhttp.Request) (*profile.Profile, error)

	mu    sync.Mutex
	taken []pprofhttp.Request
}

func (h *host) Processes() []pprofhttp.Process { return h.procs }

func (h *host) Profile(_ context.Context, r pprofhttp.Request) (*profile.Profile, error) {
	h.mu.Lock()
	h.taken = append(h.taken, r)
	h.mu.Unlock()
	return h.make(r)
}

func (h *host) requests() []pprofhttp.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.taken)
}

// stack is a leaf and its callers with a value.
type stack struct {
	frames []string
	value  int64
	labels map[string][]string
}

func stacksOf(kind string, list ...stack) *profile.Profile {
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1e7, DurationNanos: 5e9,
		TimeNanos: time.Date(2026, 11, 23, 5, 16, 5, 0, time.UTC).UnixNano(),
		Mapping:   []*profile.Mapping{{ID: 1, Start: 0x400000, Limit: 0x800000, File: "/srv/shop", HasFunctions: true}},
	}
	if kind != pprofhttp.KindProfile {
		p.SampleType = []*profile.ValueType{{Type: "inuse_objects", Unit: "count"}, {Type: "inuse_space", Unit: "bytes"}}
		p.PeriodType, p.Period = &profile.ValueType{Type: "space", Unit: "bytes"}, 524288
	}
	known := map[string]*profile.Location{}
	for _, s := range list {
		sample := &profile.Sample{Value: []int64{s.value, s.value * 1e7}, Label: s.labels}
		for _, name := range s.frames {
			l := known[name]
			if l == nil {
				id := uint64(len(known) + 1)
				f := &profile.Function{ID: id, Name: name, SystemName: name, Filename: "/src/" + name}
				l = &profile.Location{ID: id, Mapping: p.Mapping[0], Address: 0x400000 + id, Line: []profile.Line{{Function: f, Line: int64(id)}}}
				known[name] = l
				p.Function, p.Location = append(p.Function, f), append(p.Location, l)
			}
			sample.Location = append(sample.Location, l)
		}
		p.Sample = append(p.Sample, sample)
	}
	return p
}

func shopProfile(r pprofhttp.Request) (*profile.Profile, error) {
	return stacksOf(r.Kind,
		stack{frames: []string{"main.hash", "main.(*cart).total", "main.serve", "main.main"}, value: 60},
		stack{frames: []string{"main.pay", "main.serve", "main.main"}, value: 30},
		stack{frames: []string{"main.idle", "main.main"}, value: 10}), nil
}

func shopHost() *host {
	h := &host{make: shopProfile}
	for i, service := range []string{"shop", "shop", "shop", "search", "mail/out", "..", ""} {
		h.procs = append(h.procs, pprofhttp.Process{
			PID: 4242 + i, Start: uint64(1000 + i), Service: service, Comm: "server", Labels: []export.Label{
				{Name: "exe", Value: "/srv/" + service}, {Name: "go_version", Value: "go1.26.7"}, {Name: "host", Value: "node-7"},
				{Name: "systemd_unit", Value: service + ".service"},
			},
		})
	}
	return h
}

// site is a UI behind the agent's HTTP front.
type site struct {
	*UI
	base, token string // of URLs
}

func serve(t *testing.T, src pprofhttp.Source) *site {
	t.Helper()
	dir := t.TempDir()
	s, err := web.New(web.Config{Listen: "127.0.0.1:0", DataDir: dir}, web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	u := New(Options{Source: src, Command: render.Program(), Host: "node-7"})
	u.Register(func(pattern string, h http.Handler) { s.Handle(web.Protected, pattern, h) })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if u.kept.sweep != nil {
			u.kept.sweep.Stop()
		}
	})
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	return &site{UI: u, base: "http://" + s.Addr().String(), token: strings.TrimSpace(string(token))}
}

func (s *site) authorization() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(web.User+":"+s.token))
}

// answer is an answer to a request, redirections not followed.
type answer struct {
	code     int
	body     string
	location string
	header   http.Header
}

func (s *site) get(t *testing.T, path string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", s.authorization())
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(path, err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(path, err)
	}
	return answer{resp.StatusCode, b.String(), resp.Header.Get("Location"), resp.Header}
}

// follow gets path, or what it leads to at once.
func (s *site) follow(t *testing.T, path string) (string, answer) {
	t.Helper()
	a := s.get(t, path)
	for n := 0; a.code == http.StatusSeeOther && n < 3; n++ {
		path = a.location
		a = s.get(t, path)
	}
	return path, a
}
