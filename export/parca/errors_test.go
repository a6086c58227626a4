package parca

import (
	"context"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/parca/profilestorepb"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/parca"
)

// fails returns what is said of a profile that cannot be delivered.
func fails(t *testing.T, x *Exporter) *export.DeliveryError {
	t.Helper()
	err := x.Export(t.Context(), profileOf(t, "cpu", cpuData(200)))
	e := export.RetryOf(err)
	if e == nil {
		t.Fatalf("no DeliveryError: %v", err)
	}
	for _, want := range []string{"parca ", "cpu profile of process 42"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	return e
}

func check(t *testing.T, e *export.DeliveryError, retry export.Retry, reason, words string) {
	t.Helper()
	if e.Retry != retry || e.Reason != reason || !strings.Contains(e.Error(), words) {
		t.Errorf("retry %d, reason %q: %v; wanted: retry %d, reason %q, %q", e.Retry, e.Reason, e, retry, reason, words)
	}
}

func TestCodes(t *testing.T) {
	s, x := connected(t, Options{})
	for code, want := range map[codes.Code]verdict{
		codes.InvalidArgument:    {export.Never, "invalid"},
		codes.FailedPrecondition: {export.Never, "failed_precondition"},
		codes.OutOfRange:         {export.Never, "out_of_range"},
		codes.AlreadyExists:      {export.Never, "already_exists"},
		codes.Unknown:            {export.Once, "unknown"},
		codes.Internal:           {export.Once, "internal"},
		codes.DataLoss:           {export.Once, "data_loss"},
		codes.Code(99):           {export.Once, "grpc_99"},
		codes.Unavailable:        {export.Later, "unavailable"},
		codes.DeadlineExceeded:   {export.Later, "timeout"},
		codes.Canceled:           {export.Later, "canceled"},
		codes.Aborted:            {export.Later, "aborted"},
		codes.ResourceExhausted:  {export.Later, "resource_exhausted"},
		codes.Unauthenticated:    {export.Later, "unauthorized"},
		codes.PermissionDenied:   {export.Later, "unauthorized"},
		codes.Unimplemented:      {export.Later, "unimplemented"},
		codes.NotFound:           {export.Later, "not_found"},
	} {
		s.Refuse(1, code, "the server's\nwords")
		check(t, fails(t, x), want.retry, want.reason, "the server's words")
	}
	if n := len(send(t, s, x, profileOf(t, "cpu", cpuData(1)))); n != 1 {
		t.Error("not stored afterwards")
	}
}

func TestServersWords(t *testing.T) {
	s, x := connected(t, Options{})
	s.Refuse(1, codes.InvalidArgument, strings.Repeat("ü", 100_000))
	if e := fails(t, x); len(e.Error()) > maxWords+200 || !strings.HasSuffix(e.Error(), "ü…") {
		t.Errorf("%d bytes", len(e.Error()))
	}
	later, err := status.New(codes.ResourceExhausted, "slow down").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(7 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	s.RefuseBy(1, later)
	e := fails(t, x)
	check(t, e, export.Later, "resource_exhausted", "slow down")
	if e.After != 7*time.Second {
		t.Errorf("after %v", e.After)
	}
}

// What the server finds too large it will find too large for ever.
func TestServersLimit(t *testing.T) {
	_, x := connected(t, Options{})
	_, err := x.client.WriteRaw(t.Context(), &profilestorepb.WriteRawRequest{Series: []*profilestorepb.RawProfileSeries{{
		Labels: &profilestorepb.LabelSet{Labels: []*profilestorepb.Label{{Name: "__name__", Value: strings.Repeat("x", fake.MaxMessage)}}},
	}}})
	check(t, export.RetryOf(x.judged(err)), export.Never, tooLarge, "67108")
}

func TestServerAppears(t *testing.T) {
	s := fake.Start(t, fake.Options{})
	x := newExporter(t, Options{Address: s.Addr})
	s.Stop()
	check(t, fails(t, x), export.Later, "unavailable", "connection refused")
	s = fake.Start(t, fake.Options{Addr: s.Addr})
	within(t, x)
	if len(s.Stored()) != 1 {
		t.Error("not stored")
	}
	s.Stop()
	check(t, fails(t, x), export.Later, "unavailable", "")
	fake.Start(t, fake.Options{Addr: s.Addr})
	within(t, x)
}

// within sends until it succeeds, as a queue does.
func within(t *testing.T, x *Exporter) {
	t.Helper()
	var err error
	for end := time.Now().Add(4 * maxPause); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = x.Export(t.Context(), profileOf(t, "cpu", cpuData(3))); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault  fake.Fault
		retry  export.Retry
		reason string
		words  string
		stored bool
	}{
		"slow":            {fake.Slow, export.Later, "timeout", "", false},
		"hanging":         {fake.Hang, export.Later, "timeout", "", false},
		"reset":           {fake.Reset, export.Later, "unavailable", "", false},
		"another server":  {fake.NoProtocol, export.Later, "unavailable", "is that a gRPC server", false},
		"garbage":         {fake.Garbage, export.Once, "internal", "", true},
		"the answer lost": {fake.Lose, export.Later, "unavailable", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			s, x := connected(t, Options{Timeout: time.Second})
			s.Fault(c.fault)
			check(t, fails(t, x), c.retry, c.reason, c.words)
			if (len(s.Stored()) > 0) != c.stored {
				t.Errorf("%d stored", len(s.Stored()))
			}
			s.Fault(fake.None)
			within(t, x)
		})
	}
}

func TestEndOfContext(t *testing.T) {
	s, x := connected(t, Options{})
	s.Fault(fake.Hang)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	began := time.Now()
	e := export.RetryOf(x.Export(ctx, profileOf(t, "cpu", cpuData(1))))
	if e == nil || e.Retry != export.Later || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", e, time.Since(began))
	}
}

func TestNameThatIsNone(t *testing.T) {
	x := newExporter(t, Options{Address: "http://parca.invalid:7070", Timeout: 5 * time.Second})
	if e := fails(t, x); e.Retry != export.Later || !strings.Contains(e.Error(), "parca.invalid") {
		t.Errorf("%q: %v", e.Reason, e)
	}
}

// secured is a server with TLS, and a file with the authority to trust.
func secured(t *testing.T, token string) (s *fake.Server, ca string) {
	t.Helper()
	h := httptest.NewUnstartedServer(nil)
	h.StartTLS() // it has a certificate for 127.0.0.1 and example.com
	config := h.TLS.Clone()
	config.NextProtos = []string{"h2"}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	h.Close()
	if err := os.WriteFile(ca, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fake.Start(t, fake.Options{TLS: config, Token: token}), ca
}

func TestTLS(t *testing.T) {
	s, ca := secured(t, "")
	plain := fake.Start(t, fake.Options{})
	for name, c := range map[string]struct {
		o     Options
		words string // of the error; "": none
	}{
		"an authority":                      {Options{Address: s.Addr, TLS: export.TLS{CA: ca}}, ""},
		"a URL":                             {Options{Address: "https://" + s.Addr, TLS: export.TLS{CA: ca}}, ""},
		"another name":                      {Options{Address: s.Addr, TLS: export.TLS{CA: ca, ServerName: "example.com"}}, ""},
		"anybody":                           {Options{Address: s.Addr, TLS: export.TLS{InsecureSkipVerify: true}}, ""},
		"an unknown authority":              {Options{Address: "https://" + s.Addr}, "certificate"},
		"a wrong name":                      {Options{Address: s.Addr, TLS: export.TLS{CA: ca, ServerName: "shop.test"}}, "shop.test"},
		"a server without, a client with":   {Options{Address: "https://" + plain.Addr}, "write http://"},
		"a server with, a client without":   {Options{Address: s.Addr}, "does it want TLS"},
		"a server without, by URL":          {Options{Address: "http://" + plain.Addr}, ""},
		"a server without, said explicitly": {Options{Address: plain.Addr, Insecure: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Timeout = 5 * time.Second
			x := newExporter(t, c.o)
			if c.words == "" {
				if err := x.Export(t.Context(), profileOf(t, "cpu", cpuData(1))); err != nil {
					t.Error(err)
				}
				return
			}
			check(t, fails(t, x), export.Later, "unavailable", c.words)
		})
	}
}

func TestTokenAndHeaders(t *testing.T) {
	s, ca := secured(t, "s3cret")
	file := filepath.Join(t.TempDir(), "token")
	x := newExporter(t, Options{Address: s.Addr, TLS: export.TLS{CA: ca}, BearerTokenFile: file, Headers: map[string]string{"projectID": "p-1"}, Version: "1.2"})
	check(t, fails(t, x), export.Later, "secret", file)
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("0ld")
	e := fails(t, x)
	check(t, e, export.Later, "unauthorized", "no valid token")
	if strings.Contains(e.Error(), "0ld") {
		t.Errorf("the token is told: %v", e)
	}
	write("s3cret")
	got := one(t, s, x, profileOf(t, "cpu", cpuData(1)))
	if v := got.Metadata.Get("projectid"); len(v) != 1 || v[0] != "p-1" {
		t.Errorf("%v", got.Metadata)
	}
	if v := got.Metadata.Get("user-agent"); len(v) != 1 || !strings.HasPrefix(v[0], "pprofd/1.2 ") {
		t.Errorf("%v", v)
	}
	none := newExporter(t, Options{Address: s.Addr, TLS: export.TLS{CA: ca}})
	check(t, fails(t, none), export.Later, "unauthorized", "bearer_token_file")
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"HOST:PORT is wanted":                 {Address: "parca"},
		"address \"\"":                        {},
		"address \":7070\"":                   {Address: ":7070"},
		"unix:// is unknown":                  {Address: "unix:///run/parca"},
		"http://HOST:PORT is wanted":          {Address: "http://parca"},
		"https://HOST:PORT is wanted":         {Address: "https://user:pass@parca:7070"},
		"HOST:PORT is wanted, with no more":   {Address: "http://parca:7070/api"},
		"options: write https://":             {Address: "http://parca:7070", TLS: export.TLS{CA: "x"}},
		"or leave the options out":            {Address: "parca:7070", Insecure: true, TLS: export.TLS{CA: "x"}},
		"contradict each other":               {Address: "https://parca:7070", Insecure: true},
		"ca: open":                            {Address: "parca:7070", TLS: export.TLS{CA: "/does/not/exist"}},
		"must be positive":                    {Address: "parca:7070", Timeout: -1},
		"give bearer_token_file":              {Address: "parca:7070", Headers: map[string]string{"Authorization": "Bearer s3cret"}},
		"no header may be called that":        {Address: "parca:7070", Headers: map[string]string{"grpc-timeout": "1"}},
		"\"a b\": no header may be called":    {Address: "parca:7070", Headers: map[string]string{"a b": "1"}},
		"binary values, which cannot":         {Address: "parca:7070", Headers: map[string]string{"x-bin": "1"}},
		"\"x\": its value is not one line":    {Address: "parca:7070", Headers: map[string]string{"x": "s3cret\n"}},
		"is there twice":                      {Address: "parca:7070", Headers: map[string]string{"x": "1", "X": "2"}},
		"\"te\": it belongs to the protocol":  {Address: "parca:7070", Headers: map[string]string{"te": "x"}},
		"address \"host:\": HOST:PORT is wan": {Address: "host:"},
	} {
		x, err := New(o)
		if err == nil {
			x.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "parca: ") || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "pass") {
			t.Errorf("%+v: %v; wanted %q", o, err, want)
		}
	}
}

// Where it is not said, TLS is left out to this host only.
func TestPlain(t *testing.T) {
	for address, want := range map[string]bool{
		"localhost:7070": true, "127.0.0.1:7070": true, "[::1]:7070": true, "http://parca:7070": true,
		"parca:7070": false, "10.0.0.1:7070": false, "https://localhost:7070": false, "localhost.example.com:7070": false,
	} {
		host, plain, err := (&Options{Address: address}).server()
		if _, _, errHost := net.SplitHostPort(host); err != nil || errHost != nil || plain != want {
			t.Errorf("%s: %s, plain %v, %v", address, host, plain, err)
		}
	}
}
