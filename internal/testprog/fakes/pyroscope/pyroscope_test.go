package pyroscope

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	profilev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/proto"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// attempt is a request, and what the real server answers.
type attempt struct {
	name   string
	change func(*change)
	status int // by the Push API
	ingest int // by /ingest; 0: the same thing cannot be said there
}

// change is what an attempt may change.
type change struct {
	p      *profilev1.Profile
	labels map[string]string
	more   []*typesv1.LabelPair
	raw    func([]byte) []byte
}

func good() *change {
	return &change{
		labels: map[string]string{"__name__": "process_cpu", "service_name": "s", "__delta__": "false", "pid": "1"},
		p: &profilev1.Profile{
			StringTable: []string{"", "cpu", "nanoseconds", "f", "/f.go", "key", "value"},
			SampleType:  []*profilev1.ValueType{{Type: 1, Unit: 2}}, PeriodType: &profilev1.ValueType{Type: 1, Unit: 2}, Period: 10,
			TimeNanos: time.Now().Add(-time.Minute).UnixNano(),
			Function:  []*profilev1.Function{{Id: 1, Name: 3, Filename: 4}}, Location: []*profilev1.Location{{Id: 1, Line: []*profilev1.Line{{FunctionId: 1}}}},
			Sample: []*profilev1.Sample{{LocationId: []uint64{1}, Value: []int64{5}}},
		},
	}
}

// strings adds texts to the table, and gives the first's index.
func (c *change) strings(texts ...string) int64 {
	n := len(c.p.StringTable)
	c.p.StringTable = append(c.p.StringTable, texts...)
	return int64(n)
}

func attempts() []attempt {
	sample := func(n int) func(*change) {
		return func(c *change) {
			for range n - 1 {
				c.p.Sample = append(c.p.Sample, proto.Clone(c.p.Sample[0]).(*profilev1.Sample))
			}
		}
	}
	return []attempt{
		{"good", func(*change) {}, 200, 200},
		{"not compressed", func(c *change) { c.raw = unzip }, 200, 200},
		{"no name", func(c *change) { delete(c.labels, "__name__") }, 400, 0},
		{"no service", func(c *change) { delete(c.labels, "service_name") }, 200, 0},
		{"an empty service", func(c *change) { c.labels["service_name"] = "" }, 400, 422},
		{"a label twice", func(c *change) { c.more = []*typesv1.LabelPair{{Name: "pid", Value: "1"}} }, 400, 200},
		{"a label without a name", func(c *change) { c.labels[""] = "x" }, 400, 400},
		{"a label without a value", func(c *change) { c.labels["x"] = "" }, 200, 200},
		{"30 labels", func(c *change) { fill(c, 26) }, 200, 0},
		{"31 labels", func(c *change) { fill(c, 27) }, 400, 422},
		{"31 with that of a sample", func(c *change) {
			fill(c, 26)
			c.p.Sample[0].Label = []*profilev1.Label{{Key: 5, Str: 6}}
		}, 400, 422},
		{"30 of which one is a sample's, too", func(c *change) {
			fill(c, 25)
			c.labels["key"] = "mine"
			c.p.Sample[0].Label = []*profilev1.Label{{Key: 5, Str: 6}}
		}, 200, 0},
		{"2,048 bytes", func(c *change) { c.labels["x"] = strings.Repeat("x", 2048) }, 200, 200},
		{"2,049 bytes", func(c *change) { c.labels["x"] = strings.Repeat("x", 2049) }, 400, 422},
		{"a name of 1,025 bytes", func(c *change) { c.labels[strings.Repeat("x", 1025)] = "x" }, 400, 422},
		{"too old", func(c *change) { c.p.TimeNanos = time.Now().Add(-61 * time.Minute).UnixNano() }, 400, 422},
		{"too new", func(c *change) { c.p.TimeNanos = time.Now().Add(11 * time.Minute).UnixNano() }, 400, 422},
		{"no time", func(c *change) { c.p.TimeNanos = 0 }, 200, 200},
		{"no sample type", func(c *change) { c.p.SampleType = nil; c.p.Sample[0].Value = nil }, 400, 422},
		{"two values of one type", func(c *change) { c.p.Sample[0].Value = []int64{1, 2} }, 400, 422},
		{"string 0 is not empty", func(c *change) { c.p.StringTable[0] = "x" }, 400, 422},
		{"a string that is not there", func(c *change) { c.p.Function[0].Name = 99 }, 400, 422},
		{"location 0", func(c *change) { c.p.Location[0].Id = 0 }, 400, 422},
		{"location 0 in a sample", func(c *change) { c.p.Sample[0].LocationId = []uint64{0} }, 200, 200},
		{"function 0", func(c *change) { c.p.Function[0].Id = 0 }, 400, 422},
		{"a sample type with -", func(c *change) { c.p.SampleType[0].Type = c.strings("a-b") }, 400, 422},
		{"16,000 samples", sample(16_000), 200, 200},
		{"16,001 samples", sample(16_001), 400, 422},
		{"101 labels of a sample", func(c *change) {
			for range 101 {
				c.p.Sample[0].Label = append(c.p.Sample[0].Label, &profilev1.Label{Key: 5, Num: 1})
			}
		}, 400, 422},
		{"nothing but zero", func(c *change) { c.p.Sample[0].Value[0] = 0 }, 200, 200},
		{"zero, and no period type", func(c *change) {
			c.p.PeriodType = nil
			c.p.Sample = append(c.p.Sample, &profilev1.Sample{LocationId: []uint64{1}, Value: []int64{0}})
			c.p.Function = append(c.p.Function, &profilev1.Function{Id: 2, Name: c.strings("g")})
			c.p.Location = append(c.p.Location, &profilev1.Location{Id: 2, Line: []*profilev1.Line{{FunctionId: 2}}})
			c.p.Sample[1].LocationId = []uint64{2} // what only it has is dropped with it
		}, 500, 0},
		{"an unknown location", func(c *change) { c.p.Sample[0].LocationId = []uint64{7} }, 200, 200},
		{"no bytes", func(c *change) { c.raw = func([]byte) []byte { return nil } }, 500, 200},
		{"garbage", func(c *change) { c.raw = func([]byte) []byte { return []byte("\x07garbage") } }, 500, 0},
		{"half of it", func(c *change) { c.raw = func(b []byte) []byte { return b[:len(b)/2] } }, 500, 0},
		{"more than 2 MiB", func(c *change) { c.strings(strings.Repeat("x", 2<<20)) }, 429, 429},
		{"more than 4 MiB", func(c *change) { c.strings(strings.Repeat("x", 4<<20)) }, 400, 422},
	}
}

func fill(c *change, n int) {
	for i := range n {
		c.labels[fmt.Sprintf("l%02d", i)] = "x"
	}
}

func unzip(b []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		panic(err) // it was made here
	}
	out, err := io.ReadAll(z)
	if err != nil {
		panic(err)
	}
	return out
}

func (c *change) bytes(t *testing.T) []byte {
	t.Helper()
	raw, err := proto.Marshal(c.p)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if c.raw != nil {
		return c.raw(b.Bytes())
	}
	return b.Bytes()
}

func post(t *testing.T, to, contentType string, body []byte) int {
	t.Helper()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Post(to, contentType, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d %.200s", res.StatusCode, text)
	return res.StatusCode
}

func (c *change) push(t *testing.T, server string) int {
	t.Helper()
	series := &pushv1.RawProfileSeries{Labels: c.more, Samples: []*pushv1.RawSample{{RawProfile: c.bytes(t)}}}
	for name, value := range c.labels {
		series.Labels = append(series.Labels, &typesv1.LabelPair{Name: name, Value: value})
	}
	body, err := proto.Marshal(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{series}})
	if err != nil {
		t.Fatal(err)
	}
	return post(t, server+"/push.v1.PusherService/Push", "application/proto", body)
}

func (c *change) ingest(t *testing.T, server string) int {
	t.Helper()
	var tags []string
	for name, value := range c.labels {
		if !strings.HasPrefix(name, "__") {
			tags = append(tags, name+"="+value)
		}
	}
	for _, l := range c.more {
		tags = append(tags, l.Name+"="+l.Value)
	}
	return ingest(t, server, "app{"+strings.Join(tags, ",")+"}", map[string][]byte{"profile": c.bytes(t)})
}

func ingest(t *testing.T, server, name string, parts map[string][]byte) int {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for part, text := range parts {
		f, err := w.CreateFormFile(part, part)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return post(t, server+"/ingest?name="+url.QueryEscape(name), w.FormDataContentType(), b.Bytes())
}

// agree sends every attempt to a server, and compares the answers with those that are known.
func agree(t *testing.T, server string, calm func()) {
	for _, a := range attempts() {
		t.Run("push/"+a.name, func(t *testing.T) {
			c := good()
			a.change(c)
			calm()
			if got := c.push(t, server); got != a.status {
				t.Errorf("status %d, not %d", got, a.status)
			}
		})
		t.Run("ingest/"+a.name, func(t *testing.T) {
			c := good()
			a.change(c)
			calm()
			if a.ingest == 0 {
				return
			}
			if got := c.ingest(t, server); got != a.ingest {
				t.Errorf("status %d, not %d", got, a.ingest)
			}
		})
	}
	t.Run("ingest/forms", func(t *testing.T) {
		calm()
		profile := good().bytes(t)
		for name, want := range map[string]int{"a b{}": 400, "a{x-y=1}": 400, "a{x.y=1}": 200, "a": 200, "": 400, "a/b-c_d.e{}": 200, "a{x=1": 200} {
			if got := ingest(t, server, name, map[string][]byte{"profile": profile}); got != want {
				t.Errorf("%s: status %d, not %d", name, got, want)
			}
		}
		if got := ingest(t, server, "a", map[string][]byte{"other": profile}); got != 200 {
			t.Errorf("no profile: status %d, not 200", got)
		}
		if got := ingest(t, server, "a", map[string][]byte{"profile": profile, "prev_profile": profile}); got != 422 {
			t.Errorf("a previous profile: status %d, not 422", got)
		}
		if got := post(t, server+"/ingest?format=pprof&name=a", "binary/octet-stream", profile); got != 200 {
			t.Errorf("as the body: status %d, not 200", got)
		}
	})
	t.Run("push/others", func(t *testing.T) {
		to := server + "/push.v1.PusherService/Push"
		if got := post(t, to, "application/proto", nil); got != 400 {
			t.Errorf("nothing: status %d, not 400", got)
		}
		if got := post(t, to, "text/plain", nil); got != 415 {
			t.Errorf("text: status %d, not 415", got)
		}
		if got := post(t, to, "application/json", []byte("{")); got != 400 {
			t.Errorf("half of JSON: status %d, not 400", got)
		}
	})
}

func TestAnswers(t *testing.T) {
	s := Start(t, Options{Limits: Limits{Rate: -1}})
	s.limit.SetLimit(1 << 30) // so that only the burst counts
	agree(t, s.URL(), func() {})
}

// TestRealPyroscopeAnswers: the fake is as strict as the real server, no more and no less.
func TestRealPyroscopeAnswers(t *testing.T) {
	agree(t, Real(t), func() { time.Sleep(600 * time.Millisecond) }) // 4 MiB a second are taken
}

// TestLoss: of two profiles with equal labels and time one is lost; another sample type is another series.
func TestLoss(t *testing.T) {
	s := Start(t, Options{})
	a, b := good(), good()
	b.p.TimeNanos, b.p.Sample[0].Value[0] = a.p.TimeNanos, 7
	other := good()
	other.p.TimeNanos, other.labels["pid"] = a.p.TimeNanos, "2"
	for _, c := range []*change{a, b, other} {
		if got := c.push(t, s.URL()); got != 200 {
			t.Fatal(got)
		}
	}
	if all, once := s.Sum("cpu", false), s.Sum("cpu", true); all != 17 || once != 10 {
		t.Errorf("%d, %d left", all, once)
	}
}

func TestComplaints(t *testing.T) {
	for want, f := range map[string]func(*change){
		"__delta__":       func(c *change) { delete(c.labels, "__delta__") },
		"colon":           func(c *change) { c.labels["__name__"] = "a:b" },
		"hidden":          func(c *change) { c.labels["a.b"] = "x" },
		"belongs to":      func(c *change) { c.labels["__type__"] = "x" },
		"time_nanos":      func(c *change) { c.p.TimeNanos = 0 },
		"empty stack":     func(c *change) { c.p.Sample[0].LocationId = nil },
		"period type":     func(c *change) { c.p.PeriodType = nil },
		"cut at its leaf": func(c *change) { c.p.Sample[0].LocationId = bytesOf(1, 1001) },
	} {
		s := Start(t, Options{})
		c := good()
		f(c)
		if got := c.push(t, s.URL()); got != 200 {
			t.Errorf("%s: status %d", want, got)
		}
		if all := s.Complaints(); len(all) != 1 || !strings.Contains(all[0], want) {
			t.Errorf("%s: %v", want, all)
		}
	}
}

func bytesOf(id uint64, n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = id
	}
	return out
}

func TestTenants(t *testing.T) {
	s := Start(t, Options{MultiTenant: true, Authorization: func(a string) bool { return a == "" }})
	for tenant, want := range map[string]int{"": 401, "a|b": 401, "a/b": 401, "a": 200} {
		body := good()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/ingest?format=pprof&name=a", bytes.NewReader(body.bytes(t)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Scope-OrgID", tenant)
		tr := &http.Transport{}
		res, err := (&http.Client{Transport: tr}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		tr.CloseIdleConnections()
		if res.StatusCode != want {
			t.Errorf("tenant %q: %d, not %d", tenant, res.StatusCode, want)
		}
	}
}

// TestRate: the bucket is empty after a while, and fills again.
func TestRate(t *testing.T) {
	now := time.Now()
	s := Start(t, Options{Limits: Limits{Burst: 1000, Rate: 100}, Now: func() time.Time { return now }})
	taken := 0
	for good().push(t, s.URL()) == 200 {
		taken++
	}
	now = now.Add(5 * time.Second)
	if taken < 3 || taken > 20 || good().push(t, s.URL()) != 200 {
		t.Errorf("%d were taken at first", taken)
	}
}

// TestFaults: what happens to the client, and whether the profile was taken.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		f      Fault
		status int // 0: an error
		took   bool
	}{
		"through":           {Fault{What: Through}, 200, true},
		"status":            {Fault{Status: 503}, 503, false},
		"status, but taken": {Fault{Status: 503, Take: true}, 503, true},
		"garbage":           {Fault{What: Garbage, Take: true}, 200, true},
		"hang":              {Fault{What: Hang}, 0, false},
		"slow to read":      {Fault{What: SlowRead, Pause: 100 * time.Millisecond}, 0, false},
		"slow to answer":    {Fault{What: SlowAnswer, Pause: 100 * time.Millisecond, Take: true}, 0, true},
		"slow, but not too": {Fault{What: SlowAnswer, Pause: time.Microsecond, Take: true}, 200, true},
		"reset":             {Fault{What: Reset, After: 10}, 0, false},
		"lost answer":       {Fault{What: ResetAnswer, Take: true}, 0, true},
		"noise":             {Fault{What: Noise}, 0, false},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprint(name, secure), func(t *testing.T) {
				o := Options{}
				if secure {
					o.TLS = &tls.Config{}
				}
				s := Start(t, o)
				s.Fail(c.f)
				tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // it is not what is tested
				defer tr.CloseIdleConnections()
				client := &http.Client{Transport: tr, Timeout: 400 * time.Millisecond}
				ask := func() (int, error) {
					res, err := client.Post(s.URL()+"/ingest?format=pprof&name=a", "binary/octet-stream", bytes.NewReader(good().bytes(t)))
					if err != nil {
						return 0, err
					}
					defer res.Body.Close()
					_, err = io.ReadAll(res.Body)
					return res.StatusCode, err
				}
				status, err := ask()
				if c.status == 0 && err == nil || c.status != 0 && status != c.status {
					t.Errorf("status %d, %v", status, err)
				}
				if got := len(s.Series(false)) == 1; got != c.took {
					t.Errorf("taken: %t", got)
				}
				client.Timeout = 10 * time.Second
				if status, err := ask(); err != nil || status != 200 {
					t.Errorf("afterwards: %d, %v", status, err)
				}
			})
		}
	}
}

// TestRestart: what was taken stays, and the address does.
func TestRestart(t *testing.T) {
	s := Start(t, Options{})
	if good().push(t, s.URL()) != 200 {
		t.Fatal("not taken")
	}
	address := s.Addr()
	s.Close()
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	if good().push(t, s.URL()) != 200 || s.Addr() != address || s.Sum("cpu", false) != 10 {
		t.Error("it is not what it was")
	}
}
