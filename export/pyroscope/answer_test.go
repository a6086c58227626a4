package pyroscope

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

// verdict is a failure as the queue sees it.
type verdict struct {
	retry  export.Retry
	reason string
	says   string // in the error
}

func judged(t *testing.T, err error, want verdict) {
	t.Helper()
	d := export.RetryOf(err)
	if d == nil {
		t.Fatalf("%v is not judged", err)
	}
	if d.Retry != want.retry || d.Reason != want.reason || !strings.Contains(err.Error(), want.says) {
		t.Errorf("retry %d, reason %q: %v; want %+v", d.Retry, d.Reason, err, want)
	}
}

func both(t *testing.T, f func(t *testing.T, api string)) {
	for _, api := range []string{APIPush, APIIngest} {
		t.Run(api, func(t *testing.T) { f(t, api) })
	}
}

func TestStatuses(t *testing.T) {
	for status, want := range map[int]verdict{
		301: {export.Later, "http_301", "https://example.org/x"},
		400: {export.Never, "invalid", "so it was ordered"},
		401: {export.Later, "unauthorized", "see tenant"},
		403: {export.Later, "unauthorized", "so it was ordered"},
		404: {export.Later, "http_404", "see url"},
		405: {export.Later, "http_405", ""},
		408: {export.Later, "http_408", ""},
		413: {export.Never, "too_large", "so it was ordered"},
		415: {export.Never, "http_415", ""},
		422: {export.Never, "invalid", "so it was ordered"},
		429: {export.Later, "rate_limited", "so it was ordered"},
		500: {export.Once, "http_500", "so it was ordered"},
		501: {export.Never, "http_501", ""},
		502: {export.Later, "http_502", ""},
		503: {export.Later, "http_503", "so it was ordered"},
		504: {export.Later, "http_504", ""},
		204: {export.Later, "http_204", ""},
		206: {export.Later, "http_206", ""},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			both(t, func(t *testing.T, api string) {
				s := fake.Start(t, fake.Options{})
				e := newExporter(t, Options{URL: s.URL(), API: api})
				f := fake.Fault{Status: status}
				if status == 301 {
					f.Header = http.Header{"Location": {"https://example.org/x"}}
				}
				s.Fail(f)
				p := cpuProfile(t, one)
				judged(t, e.Export(t.Context(), p), want)
				send(t, e, p)
				if got := s.Sum("samples", false); got != 1 {
					t.Errorf("%d samples, not 1", got)
				}
			})
		})
	}
}

func TestServersOwnWords(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{Limits: fake.Limits{Rate: 1, Burst: 3000}, MultiTenant: true})
		for name, c := range map[string]struct {
			tenant string
			p      *export.Profile
			want   verdict
		}{
			"too old":   {"a", made(t, time.Now().Add(-2*time.Hour)), verdict{export.Never, "invalid", "outside of ingestion window"}},
			"no tenant": {"", made(t, time.Now()), verdict{export.Later, "unauthorized", "no org id"}},
			"rate":      {"a", cpuProfile(t, func(m *maker) { m.many(200, 10) }), verdict{export.Later, "rate_limited", "push rate limit"}},
		} {
			e := newExporter(t, Options{URL: s.URL(), API: api, Tenant: c.tenant})
			t.Run(name, func(t *testing.T) { judged(t, e.Export(t.Context(), c.p), c.want) })
		}
	})
}

func made(t *testing.T, at time.Time) *export.Profile {
	t.Helper()
	m := newMaker("cpu", at)
	one(m)
	return m.profile("cpu")
}

func TestRetryAfter(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{})
		e := newExporter(t, Options{URL: s.URL(), API: api})
		for text, want := range map[string]time.Duration{
			"17": 17 * time.Second, "": 0, "soon": 0, "-3": 0, "99999999": maxAfter, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
		} {
			s.Fail(fake.Fault{Status: 503, Header: http.Header{"Retry-After": {text}}})
			if d := export.RetryOf(e.Export(t.Context(), cpuProfile(t, one))); d == nil || d.After != want {
				t.Errorf("Retry-After %q: %v", text, d)
			}
		}
		s.Fail(fake.Fault{Status: 429, Header: http.Header{"Retry-After": {time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)}}})
		if d := export.RetryOf(e.Export(t.Context(), cpuProfile(t, one))); d == nil || d.After < 50*time.Second || d.After > time.Minute {
			t.Errorf("%v", d)
		}
	})
}

func TestBrokenAnswers(t *testing.T) {
	page := fake.Fault{Status: 200, Body: "<html>Please log in</html>", Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}}
	for name, c := range map[string]struct {
		f    fake.Fault
		want verdict
		only string // one of the interfaces
	}{
		"reset before":    {fake.Fault{What: fake.Reset}, verdict{export.Later, "unreachable", ""}, ""},
		"reset in body":   {fake.Fault{What: fake.Reset, After: 100}, verdict{export.Later, "unreachable", ""}, ""},
		"reset in answer": {fake.Fault{What: fake.ResetAnswer}, verdict{export.Later, "unreachable", ""}, ""},
		"hangs":           {fake.Fault{What: fake.Hang}, verdict{export.Later, "timeout", ""}, ""},
		"slow":            {fake.Fault{What: fake.SlowAnswer, Pause: 50 * time.Millisecond}, verdict{export.Later, "timeout", ""}, ""},
		"reads slowly":    {fake.Fault{What: fake.SlowRead, Pause: 50 * time.Millisecond}, verdict{export.Later, "timeout", ""}, ""},
		"no HTTP":         {fake.Fault{What: fake.Noise}, verdict{export.Later, "unreachable", ""}, ""},
		"garbage":         {fake.Fault{What: fake.Garbage}, verdict{export.Later, "bad_answer", "not that of a Pyroscope"}, APIPush},
		"a proxy's page":  {page, verdict{export.Later, "bad_answer", "not that of a Pyroscope"}, ""},
		"a page with 503": {fake.Fault{Status: 503, Body: "<html>\nno\x1b[31mbody   home</html>"}, verdict{export.Later, "http_503", `"<html> no [31mbody home</html>"`}, ""},
		"a huge error":    {fake.Fault{Status: 400, Body: strings.Repeat("no ", 1<<20)}, verdict{export.Never, "invalid", "no no..."}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, api string) {
				if c.only != "" && api != c.only {
					return
				}
				s := fake.Start(t, fake.Options{})
				e := newExporter(t, Options{URL: s.URL(), API: api, Timeout: 300 * time.Millisecond})
				s.Fail(c.f)
				p := cpuProfile(t, func(m *maker) { m.many(100, 20) })
				judged(t, e.Export(t.Context(), p), c.want)
				e.o.Timeout = 10 * time.Second
				send(t, e, p)
				if got := s.Sum("samples", false); got != 5050 {
					t.Errorf("%d samples, not 5050", got)
				}
			})
		})
	}
}

func TestNobodyThere(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{})
		s.Close()
		e := newExporter(t, Options{URL: s.URL(), API: api})
		judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "unreachable", "connection refused"})
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		send(t, e, cpuProfile(t, one))

		e = newExporter(t, Options{URL: "http://no-such-host.invalid:4040", API: api})
		judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "dns", "no-such-host.invalid"})
	})
}

func TestTLS(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{TLS: &tls.Config{}})
		e := newExporter(t, Options{URL: s.URL(), API: api, TLS: export.TLS{CA: s.CA(t)}})
		send(t, e, cpuProfile(t, one))
		if r := s.Requests(); r[0].Proto != "HTTP/2.0" {
			t.Errorf("by %s", r[0].Proto)
		}
		e = newExporter(t, Options{URL: s.URL(), API: api})
		judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "tls", "certificate"})
		e = newExporter(t, Options{URL: s.URL(), API: api, TLS: export.TLS{CA: s.CA(t), ServerName: "other.example"}})
		judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "tls", "other.example"})

		plain := fake.Start(t, fake.Options{})
		e = newExporter(t, Options{URL: "https://" + plain.Addr(), API: api})
		judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "tls", ""})

		asks := fake.Start(t, fake.Options{TLS: &tls.Config{ClientAuth: tls.RequireAnyClientCert}})
		e = newExporter(t, Options{URL: asks.URL(), API: api, TLS: export.TLS{CA: asks.CA(t)}})
		// The reason is "tls" only if the alert is there before HTTP/2 gives the connection up.
		if d := export.RetryOf(e.Export(t.Context(), cpuProfile(t, one))); d == nil || d.Retry != export.Later || d.Reason != "tls" && d.Reason != "unreachable" {
			t.Errorf("%v", d)
		}
	})
}

// TestHTTP2Faults: streams are reset, and connections that died are left.
func TestHTTP2Faults(t *testing.T) {
	s := fake.Start(t, fake.Options{TLS: &tls.Config{}})
	e := newExporter(t, Options{URL: s.URL(), TLS: export.TLS{CA: s.CA(t)}, Timeout: time.Second})
	for _, what := range []fake.What{fake.Reset, fake.ResetAnswer, fake.Noise} {
		s.Fail(fake.Fault{What: what})
		judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "unreachable", ""})
	}
	s.Fail(fake.Fault{What: fake.Hang})
	judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "timeout", ""})
	send(t, e, cpuProfile(t, one))
}

// TestEndlessAnswer: whoever answers, it costs no memory.
func TestEndlessAnswer(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			for b := make([]byte, 1<<20); r.Context().Err() == nil; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		})}
		done := make(chan struct{})
		go func() {
			_ = srv.Serve(l) // until it is closed
			close(done)
		}()
		defer func() {
			srv.Close()
			<-done
		}()
		e := newExporter(t, Options{URL: "http://" + l.Addr().String(), API: api, Timeout: 5 * time.Second})
		begun := time.Now()
		err = e.Export(t.Context(), cpuProfile(t, one))
		if api == APIPush {
			judged(t, err, verdict{export.Later, "bad_answer", ""})
		}
		if d := time.Since(begun); d > 4*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
