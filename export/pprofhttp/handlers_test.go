package pprofhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	netpprof "net/http/pprof"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// self has one process, the one that it runs in, of which it takes profiles by runtime/pprof.
type self struct {
	name string
	fail error
}

func (s *self) Processes() []Process {
	return []Process{{PID: os.Getpid(), Service: s.name, Comm: s.name, Labels: []export.Label{
		{Name: "host", Value: "h"}, {Name: "pod_label_a.b/c", Value: s.name}, {Name: "__address__", Value: "elsewhere"},
	}}}
}

func (s *self) Profile(ctx context.Context, q Request) (*profile.Profile, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	var b bytes.Buffer
	if q.Kind != KindProfile {
		if err := pprof.Lookup(q.Kind).WriteTo(&b, 0); err != nil {
			return nil, err
		}
		return profile.ParseData(b.Bytes())
	}
	if err := pprof.StartCPUProfile(&b); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(q.Duration):
	}
	pprof.StopCPUProfile()
	return profile.ParseData(b.Bytes())
}

func (s *self) Cmdline(pid int) ([]string, error) {
	if pid != os.Getpid() {
		return nil, NotFound("process %d does not run", pid)
	}
	return os.Args, nil
}

func (s *self) Names(_ context.Context, _ int, pcs []uint64) ([]string, error) {
	names := make([]string, len(pcs))
	for i, pc := range pcs {
		if f := runtime.FuncForPC(uintptr(pc)); f != nil {
			names[i] = f.Name()
		}
	}
	return names, nil
}

// serve serves s, and net/http/pprof beside it.
func serve(t *testing.T, s *self) string {
	t.Helper()
	mux := http.NewServeMux()
	New(s, s).Register(mux.Handle)
	mux.HandleFunc("/debug/pprof/", netpprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", netpprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", netpprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", netpprof.Symbol)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		server.Close()
	})
	return server.URL
}

func request(t *testing.T, method, url, body string) (status int, header http.Header, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// TestAsNetHTTPPprof: status and headers are those of net/http/pprof, and so are the texts that do not change from one request to the
// next.
func TestAsNetHTTPPprof(t *testing.T) {
	base := serve(t, &self{name: "a service/of, mine"})
	prefixes := []string{fmt.Sprintf("/pid/%d", os.Getpid()), "/service/a%20service%2Fof,%20mine"}
	pc := fmt.Sprintf("%#x", func() uintptr { pc, _, _, _ := runtime.Caller(0); return pc }())
	for _, c := range []struct {
		method, path, body string
		same               bool // the text, too
		one                bool // of single processes only
	}{
		{method: "GET", path: "heap"}, {method: "GET", path: "allocs"}, {method: "GET", path: "heap?gc=1"},
		{method: "GET", path: "heap?debug=1"}, {method: "GET", path: "allocs?debug=2"}, {method: "HEAD", path: "heap"},
		{method: "GET", path: "heap?seconds=1"}, {method: "GET", path: "allocs?seconds=1"},
		{method: "GET", path: "heap?seconds=x"}, {method: "GET", path: "heap?seconds=0"}, {method: "GET", path: "heap?seconds=-3"},
		{method: "GET", path: "heap?seconds=1&debug=1", same: true},
		{method: "GET", path: "block"}, {method: "GET", path: "mutex"}, {method: "GET", path: "goroutine"}, {method: "GET", path: "block?debug=1"},
		{method: "GET", path: "mutex?debug=1"}, {method: "GET", path: "goroutine?debug=1"}, {method: "GET", path: "block?seconds=1"},
		{method: "GET", path: "mutex?seconds=1"}, {method: "GET", path: "mutex?seconds=1&debug=1", same: true},
		{method: "GET", path: "profile?seconds=1"}, {method: "GET", path: "profile?seconds=1&debug=1"},
		{method: "GET", path: "nothing"}, {method: "GET", path: ""},
		{method: "GET", path: "cmdline", same: true},
		{method: "GET", path: "symbol?" + pc, same: true, one: true}, {method: "GET", path: "symbol", same: true, one: true},
		{method: "POST", path: "symbol", body: pc + "+0x1+nonsense+" + pc, same: true, one: true},
	} {
		status, header, text := request(t, c.method, base+"/debug/pprof/"+c.path, c.body)
		for i, prefix := range prefixes {
			if i > 0 && c.one {
				continue
			}
			gotStatus, gotHeader, got := request(t, c.method, base+prefix+"/debug/pprof/"+c.path, c.body)
			if gotStatus != status || c.same && got != text {
				t.Errorf("%s %s: %d %q, want %d %q", c.method, prefix+c.path, gotStatus, got, status, text)
			}
			for _, name := range []string{"Content-Type", "Content-Disposition", "X-Go-Pprof"} {
				if gotHeader.Get(name) != header.Get(name) {
					t.Errorf("%s %s: %s %q, want %q", c.method, prefix+c.path, name, gotHeader.Get(name), header.Get(name))
				}
			}
		}
	}
}

// TestIndex: it lists the kinds; the program's words stay words.
func TestIndex(t *testing.T) {
	base := serve(t, &self{name: `<script>alert("x")</script>`})
	for _, path := range []string{fmt.Sprintf("/pid/%d/debug/pprof", os.Getpid()), "/service/%3Cscript%3Ealert(%22x%22)%3C%2Fscript%3E/debug/pprof/"} {
		status, _, text := request(t, "GET", base+path, "")
		if status != http.StatusOK || strings.Contains(text, "<script") || !strings.Contains(text, "&lt;script&gt;") {
			t.Errorf("%s: %d %s", path, status, text)
		}
		for name := range kinds {
			if !strings.Contains(text, name) {
				t.Errorf("%s: no %s", path, name)
			}
		}
	}
	if status, _, _ := request(t, "GET", base+"/service/other/debug/pprof/", ""); status != http.StatusNotFound {
		t.Errorf("index of a service that does not exist: %d", status)
	}
}

// TestErrors: what the source says is what the client is told, and when to come again.
func TestErrors(t *testing.T) {
	s := &self{name: "x"}
	base := serve(t, s)
	for err, want := range map[error]struct {
		status int
		after  string
	}{
		Busy(1500*time.Millisecond, "there are too many"): {503, "2"},
		fmt.Errorf("it: %w", NotFound("gone")):            {404, ""},
		errors.New("it broke"):                            {500, ""},
		&Error{Err: errors.New("no status")}:              {500, ""},
	} {
		s.fail = err
		status, header, text := request(t, "GET", base+"/service/x/debug/pprof/heap", "")
		if status != want.status || header.Get("Retry-After") != want.after || text != err.Error()+"\n" || header.Get("X-Go-Pprof") != "1" {
			t.Errorf("%v: %d %v %q", err, status, header, text)
		}
	}
}

// TestTargets: names of labels are such that everybody takes, and cannot stand for what the scraper does.
func TestTargets(t *testing.T) {
	base := serve(t, &self{name: "\"quoted\"\n"})
	status, header, text := request(t, "GET", base+"/targets", "")
	var groups []group
	if err := json.Unmarshal([]byte(text), &groups); err != nil || status != http.StatusOK {
		t.Fatalf("%d %v %s", status, err, text)
	}
	if !strings.HasPrefix(header.Get("Content-Type"), "application/json") || len(groups) != 1 || len(groups[0].Targets) != 1 {
		t.Fatalf("%v %s", header, text)
	}
	l := groups[0].Labels
	if groups[0].Targets[0] != strings.TrimPrefix(base, "http://") || l["__address__"] != "" || l["service_name"] != "\"quoted\"\n" ||
		l["pod_label_a_b_c"] != "\"quoted\"\n" || l["pid"] != fmt.Sprint(os.Getpid()) || l["__scheme__"] != "http" || l["host"] != "h" {
		t.Errorf("%s", text)
	}
}

// TestSampledOf: what runtime/pprof makes of a number of sampled objects leads back to that number.
func TestSampledOf(t *testing.T) {
	for _, rate := range []int64{1, 512, 4096, 512 << 10} {
		for _, size := range []int64{1, 8, 16, 48, 1024, 32768, 600000, 1 << 30} {
			for n := int64(0); n < 3000; n += 1 + n/7 {
				objects := n
				if rate > 1 {
					objects = int64(float64(n) * (1 / (1 - math.Exp(-float64(size)/float64(rate)))))
				}
				if got := sampledOf(objects, size, rate); got != n {
					t.Errorf("%d objects of %d bytes at rate %d: %d, want %d", objects, size, rate, got, n)
				}
			}
		}
	}
}

// TestContentionText: pprof reads the same from the text as from the profile.
func TestContentionText(t *testing.T) {
	f := &profile.Function{ID: 1, Name: "a\n3 3 @ 0x1", Filename: "b.go"}
	l := []*profile.Location{{ID: 1, Address: 16, Line: []profile.Line{{Function: f}}}, {ID: 2, Address: 32}}
	p := &profile.Profile{
		Comments: []string{"c\n5 5 @ 0x5"}, Function: []*profile.Function{f}, Location: l,
		Sample: []*profile.Sample{{Location: l, Value: []int64{3, 48}}, {Location: l[1:], Value: []int64{7, 1 << 40}}},
	}
	for kind, write := range map[string]func(io.Writer, *profile.Profile) error{KindBlock: writeBlock, KindMutex: writeMutex} {
		var b bytes.Buffer
		if err := write(&b, p); err != nil {
			t.Fatal(err)
		}
		got, err := profile.ParseData(b.Bytes())
		if err != nil || len(got.Sample) != 2 || got.SampleType[0].Type != "contentions" || got.SampleType[1].Unit != "nanoseconds" {
			t.Fatalf("%s: %v\n%s", kind, err, b.String())
		}
		for i, want := range [][]int64{{7, 1 << 40}, {3, 48}} {
			if s := got.Sample[i]; !slices.Equal(s.Value, want) || s.Location[len(s.Location)-1].Address != 32 {
				t.Errorf("%s: %v, want %v\n%s", kind, s.Value, want, b.String())
			}
		}
	}
}

// TestGoroutineText: it is as runtime/pprof writes it, and labels stay in their lines.
func TestGoroutineText(t *testing.T) {
	l := &profile.Location{ID: 1, Address: 16}
	p := &profile.Profile{Location: []*profile.Location{l}, Sample: []*profile.Sample{
		{Location: []*profile.Location{l}, Value: []int64{2}, Label: map[string][]string{"k": {"v\n9 @ 0x9"}, "a": {"b"}}}, {Location: []*profile.Location{l}, Value: []int64{5}},
	}}
	var b bytes.Buffer
	if err := writeGoroutines(&b, p); err != nil {
		t.Fatal(err)
	}
	const want = "goroutine profile: total 7\n5 @ 0x11\n\n2 @ 0x11\n# labels: {\"a\":\"b\", \"k\":\"v\\n9 @ 0x9\"}\n\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	if got, err := profile.ParseData(b.Bytes()); err != nil || len(got.Sample) != 2 || got.SampleType[0].Type != "goroutine" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestHeapText: names that the program made up stay in their lines.
func TestHeapText(t *testing.T) {
	f := &profile.Function{ID: 1, Name: "a\n1: 16 [1: 16] @ 0x1", Filename: "b\r\x1b[2J.go"}
	l := &profile.Location{ID: 1, Address: 16, Line: []profile.Line{{Function: f}}}
	p := &profile.Profile{
		Period: 512, Comments: []string{"c\n5: 5 [5: 5] @ 0x5"}, Function: []*profile.Function{f}, Location: []*profile.Location{l},
		Sample: []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{3, 48, 3, 48}, NumLabel: map[string][]int64{"bytes": {16}}}},
	}
	var b bytes.Buffer
	if err := writeHeap(&b, p); err != nil {
		t.Fatal(err)
	}
	got, err := profile.ParseData(b.Bytes())
	if err != nil || len(got.Sample) != 1 || strings.ContainsAny(b.String(), "\r\x1b") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
