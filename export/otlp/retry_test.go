package otlp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
)

const stacks = 200

func one() *export.Profile {
	return &export.Profile{Kind: "cpu", Service: "s", PID: 1, Data: many(stacks)}
}

// failure is what an Exporter says of a request that the server answers so.
func failure(t *testing.T, x *Exporter, s *fake.Server, f fake.Fault) *export.DeliveryError {
	t.Helper()
	s.Inject(f)
	err := x.Export(t.Context(), one())
	if err == nil {
		t.Errorf("%+v: no error", f)
		return &export.DeliveryError{Err: errors.New("none")}
	}
	e := export.RetryOf(err)
	if e == nil {
		t.Fatalf("%+v: says nothing of a retry: %v", f, err)
	}
	if !strings.Contains(err.Error(), f.Message) || !strings.Contains(err.Error(), x.o.Endpoint) {
		t.Errorf("%+v: not the server's words, or not its address: %v", f, err)
	}
	return e
}

// TestGRPCCodes: the table of the protocol's specification, "Failures" of OTLP/gRPC.
func TestGRPCCodes(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{})
	retryable := map[codes.Code]bool{
		codes.Canceled: true, codes.DeadlineExceeded: true, codes.Aborted: true, codes.OutOfRange: true, codes.Unavailable: true, codes.DataLoss: true,
		codes.PermissionDenied: true, codes.Unauthenticated: true, // ours: a token may come late
	}
	reasons := map[string]bool{}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		for _, delay := range []time.Duration{0, 7 * time.Second} {
			e := failure(t, x, s, fake.Fault{Code: code, Message: "as it is", RetryDelay: delay})
			want, after := export.Never, time.Duration(0)
			if retryable[code] || code == codes.ResourceExhausted && delay > 0 {
				want, after = export.Later, delay
			}
			if e.Retry != want || e.After != after || e.Reason == "" || strings.ContainsAny(e.Reason, " A") {
				t.Errorf("%s, delay %v: %+v", code, delay, e)
			}
			reasons[e.Reason] = true
		}
	}
	if len(reasons) != 15 { // Unauthenticated and PermissionDenied have the same
		t.Errorf("%d reasons: %v", len(reasons), reasons)
	}
	e := export.RetryOf(ofGRPC(status.Error(99, "x")))
	if e.Retry != export.Never || e.Reason != "grpc_99" {
		t.Errorf("a code that does not exist: %+v", e)
	}
	if n := s.Requests(); n != 32 {
		t.Errorf("%d requests: something else retries, too", n)
	}
}

// TestHTTPCodes: the table of the protocol's specification, "Failures" of OTLP/HTTP.
func TestHTTPCodes(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := exporter(t, s, Options{Protocol: "http"})
	type want struct {
		retry  export.Retry
		reason string
	}
	for code, w := range map[int]want{
		201: {export.Never, "http_201"}, 204: {export.Never, "http_204"},
		400: {export.Never, "invalid"}, 401: {export.Later, "unauthorized"}, 403: {export.Later, "unauthorized"}, 404: {export.Never, "http_404"}, 408: {export.Never, "http_408"},
		415: {export.Never, "http_415"}, 422: {export.Never, "http_422"}, 500: {export.Never, "http_500"}, 501: {export.Never, "http_501"},
		429: {export.Later, "http_429"}, 502: {export.Later, "http_502"}, 503: {export.Later, "http_503"}, 504: {export.Later, "http_504"},
	} {
		for _, plain := range []bool{false, true} {
			f := fake.Fault{Status: code, Message: "as it is", RetryAfter: "11", Plain: plain}
			if code == 204 {
				f.Message = "" // it has no body
			}
			e := failure(t, x, s, f)
			after := time.Duration(0)
			if w.retry == export.Later {
				after = 11 * time.Second
			}
			if e.Retry != w.retry || e.Reason != w.reason || e.After != after {
				t.Errorf("%d: %+v, should be %+v after %v", code, e, w, after)
			}
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "0": 0, "5": 5 * time.Second, "-5": 0, "1.5": 0, "soon": 0, "99999999999": 0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %v, should be %v", s, got, want)
		}
	}
}

// TestTooLargeForTheServer: halves of one stack are none.
func TestTooLargeForTheServer(t *testing.T) {
	s := fake.Start(t, fake.Options{MaxRequest: 300})
	for _, protocol := range protocols {
		x := exporter(t, s, Options{Protocol: protocol})
		before := s.Requests()
		e := export.RetryOf(x.Export(t.Context(), one()))
		if e == nil || e.Retry != export.Never || e.Reason != "too_large" {
			t.Errorf("%s: %+v", protocol, e)
		}
		if n := s.Requests() - before; n > 9 {
			t.Errorf("%s: %d requests for a profile of %d stacks", protocol, n, stacks)
		}
	}
}

// TestPartialSuccess: what is rejected is gone, and not sent again; a warning is no failure.
func TestPartialSuccess(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	for _, protocol := range protocols {
		x := exporter(t, s, Options{Protocol: protocol})
		before := s.Requests()
		e := failure(t, x, s, fake.Fault{Rejected: 2, Message: "too old"})
		if e.Retry != export.Never || e.Reason != "rejected" || s.Requests() != before+1 {
			t.Errorf("%s: %+v, %d requests", protocol, e, s.Requests()-before)
		}
		s.Inject(fake.Fault{Message: "you are slow"})
		if err := x.Export(t.Context(), one()); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		if n, last := x.Warnings(); n != 1 || last != "you are slow" {
			t.Errorf("%s: %d warnings, %q", protocol, n, last)
		}
	}
}

// TestFaults: what happens on the way.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault    fake.Fault
		retry    export.Retry
		reason   string // for both protocols, or that of gRPC
		http     string
		taken    int // profiles that the server has
		protocol string
	}{
		"hangs":      {fault: fake.Fault{Hang: true}, retry: export.Later, reason: "timeout"},
		"slow":       {fault: fake.Fault{Slow: true}, retry: export.Later, reason: "timeout", taken: 2},
		"reset":      {fault: fake.Fault{Reset: true}, retry: export.Later, reason: "unavailable", http: "unreachable"},
		"no answer":  {fault: fake.Fault{Lost: true}, retry: export.Later, reason: "unavailable", http: "unreachable", taken: 2},
		"garbage":    {fault: fake.Fault{Garbage: true}, retry: export.Once, reason: "garbage", taken: 2},
		"a web page": {fault: fake.Fault{Page: true}, retry: export.Later, reason: "garbage", protocol: "http"},
		"redirected": {fault: fake.Fault{Status: 308, Location: "http://example.org/"}, retry: export.Never, reason: "http_308", protocol: "http"},
		"endless":    {fault: fake.Fault{Huge: true}, retry: export.Never, reason: "resource_exhausted", http: "garbage", taken: 2},
	} {
		for _, protocol := range protocols {
			if c.protocol != "" && protocol != c.protocol {
				continue
			}
			s := fake.Start(t, fake.Options{})
			timeout := 30 * time.Second
			if c.reason == "timeout" {
				timeout = time.Second
			}
			x := exporter(t, s, Options{Protocol: protocol, Timeout: timeout})
			p := one()
			s.Inject(c.fault)
			began := time.Now()
			err := x.Export(t.Context(), p)
			reason := c.reason
			if protocol == "http" && c.http != "" {
				reason = c.http
			}
			e := export.RetryOf(err)
			if e == nil || e.Retry != c.retry || e.Reason != reason || time.Since(began) > 10*time.Second {
				t.Errorf("%s, %s: %v: %+v, should be %d %s", name, protocol, time.Since(began), e, c.retry, reason)
			}
			if n := len(s.Profiles()); n != c.taken {
				t.Errorf("%s, %s: the server has %d profiles, should have %d", name, protocol, n, c.taken)
			}
			if name == "redirected" && !strings.Contains(err.Error(), "example.org") {
				t.Errorf("%s: %v", name, err)
			}
			if err := soon(t, func() error { return x.Export(t.Context(), p) }); err != nil {
				t.Errorf("%s, %s: and then: %v", name, protocol, err)
			}
			if s.Sum("s", "samples") != stacks || len(s.Refused()) != 0 {
				t.Errorf("%s, %s: %d samples, %v", name, protocol, s.Sum("s", "samples"), s.Refused())
			}
		}
	}
}

// soon tries until there is no error, for as long as a connection may take to be tried again.
func soon(t *testing.T, try func() error) (err error) {
	t.Helper()
	for end := time.Now().Add(2 * maxPause); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return err
}

// TestAbsentServer: it is waited for, and found when it comes.
func TestAbsentServer(t *testing.T) {
	for _, protocol := range protocols {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		endpoint := map[string]string{"grpc": addr, "http": "http://" + addr}[protocol]
		x, err := New(Options{Endpoint: endpoint, Protocol: protocol})
		if err != nil {
			t.Fatal(err)
		}
		e := export.RetryOf(x.Export(t.Context(), one()))
		if e == nil || e.Retry != export.Later || !strings.Contains(e.Error(), "refused") {
			t.Errorf("%s: %+v", protocol, e)
		}
		o := fake.Options{GRPC: addr}
		if protocol == "http" {
			o = fake.Options{HTTP: addr}
		}
		s := fake.Start(t, o)
		if err := soon(t, func() error { return x.Export(t.Context(), one()) }); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		if s.Sum("s", "samples") == 0 {
			t.Errorf("%s: nothing arrived", protocol)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNames: a server whose name cannot be resolved may have one tomorrow.
func TestNames(t *testing.T) {
	for _, protocol := range protocols {
		x, err := New(Options{Endpoint: "nowhere.invalid:4317", Protocol: protocol, Insecure: true, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		e := export.RetryOf(x.Export(t.Context(), one()))
		if e == nil || e.Retry != export.Later {
			t.Errorf("%s: %+v", protocol, e)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestGarbageOnTheWire: what answers speaks another protocol.
func TestGarbageOnTheWire(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail.example.org ESMTP\r\n"))
			_ = c.Close()
		}
	}()
	for _, protocol := range protocols {
		x, err := New(Options{Endpoint: l.Addr().String(), Protocol: protocol, Timeout: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		e := export.RetryOf(x.Export(t.Context(), one()))
		if e == nil || e.Retry != export.Later {
			t.Errorf("%s: %+v", protocol, e)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	_ = l.Close()
	<-done
}

// TestCanceled: Export ends with its context, and what was on its way is sent again.
func TestCanceled(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	for _, protocol := range protocols {
		x := exporter(t, s, Options{Protocol: protocol})
		s.Inject(fake.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		e := export.RetryOf(x.Export(ctx, one()))
		cancel()
		if e == nil || e.Retry != export.Later || time.Since(began) > 2*time.Second {
			t.Errorf("%s: %v: %+v", protocol, time.Since(began), e)
		}
	}
}

func TestClip(t *testing.T) {
	if s := clip(" \xffabc\n"); s != "\uFFFDabc" {
		t.Errorf("%q", s)
	}
	if s := clip(strings.Repeat("a", 5000)); len(s) > maxWords+3 {
		t.Errorf("%d bytes", len(s))
	}
}
