// Package pyroscope is a fake Pyroscope server, for tests of what sends profiles: over real sockets, it takes and refuses what the real
// one does, with its codes, keeps what it took, and fails as it is told to. It is written from what was seen on real servers
// (grafana/pyroscope of August 2026, after v2.2.1): limits and codes of the Push API and of /ingest, series made of labels of
// samples, and the loss of one of two profiles of equal labels and time.
package pyroscope

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	"golang.org/x/time/rate"
)

// Options of a Server. The zero value is a server as it comes: plain HTTP/1.1 and HTTP/2 on a free port, one tenant, nobody asked who
// they are.
type Options struct {
	Addr          string            // where it listens; "": 127.0.0.1, at a free port
	TLS           *tls.Config       // not nil: HTTPS; its certificate is made where there is none
	MultiTenant   bool              // X-Scope-OrgID is required
	Authorization func(string) bool // judges the header Authorization, as a proxy in front does; nil: all may
	Limits        Limits
	Now           func() time.Time // nil: time.Now
}

// Limits of a tenant. Zeros are the real server's defaults.
type Limits struct {
	Labels       int           // of a series: 30
	Name, Value  int           // bytes of a label: 1,024 and 2,048
	Raw          int           // bytes of a profile, not compressed: 4 MiB
	Burst        int           // bytes at once: 2 MiB
	Rate         int           // bytes a second; -1: as many as one likes. 4 MiB
	Samples      int           // 16,000
	SampleLabels int           // of one sample: 100
	Depth        int           // 1,000
	Older, Newer time.Duration // 1 h, 10 min
	Body         int64         // bytes of a request: 256 MB
}

func (l *Limits) complete() {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&l.Labels, 30)
	set(&l.Name, 1024)
	set(&l.Value, 2048)
	set(&l.Raw, 4<<20)
	set(&l.Burst, 2<<20)
	set(&l.Rate, 4<<20)
	set(&l.Samples, 16000)
	set(&l.SampleLabels, 100)
	set(&l.Depth, 1000)
	if l.Older == 0 {
		l.Older = time.Hour
	}
	if l.Newer == 0 {
		l.Newer = 10 * time.Minute
	}
	if l.Body == 0 {
		l.Body = 256e6
	}
}

// Server is what profiles are sent to. What it took stays when it is closed and started again.
type Server struct {
	o     Options
	mux   *http.ServeMux
	limit *rate.Limiter

	mu         sync.Mutex
	http       *httptest.Server
	gone       chan struct{} // closed when http is
	faults     []Fault
	always     *Fault
	requests   []Request
	series     []Series
	complaints []string
}

// Request is one that came, whatever became of it.
type Request struct {
	Path     string
	Proto    string
	Header   http.Header
	Status   int   // of the answer; 0: there was none
	Wire     int64 // bytes of the body that were read
	Profiles int   // that were taken
	Fault    bool  // the answer is that of a Fault
}

// New does not listen: Listen does, or it is a handler of another server.
func New(o Options) *Server {
	o.Limits.complete()
	if o.Now == nil {
		o.Now = time.Now
	}
	per := rate.Limit(o.Limits.Rate)
	if o.Limits.Rate < 0 {
		per = rate.Inf
	}
	s := &Server{o: o, mux: http.NewServeMux(), limit: rate.NewLimiter(per, o.Limits.Burst)}
	path, push := pushv1connect.NewPusherServiceHandler(&pusher{s}, connect.WithReadMaxBytes(int(o.Limits.Body)))
	s.mux.Handle(path, push)
	s.mux.HandleFunc("/ingest", s.ingest)
	return s
}

// Start listens until the test ends.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s := New(o)
	if err := s.Listen(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Listen starts to answer, at Options.Addr, or where it did before.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := httptest.NewUnstartedServer(s)
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	if s.o.Addr != "" {
		l, err := net.Listen("tcp", s.o.Addr)
		if err != nil {
			h.Listener.Close()
			return err
		}
		h.Listener.Close()
		h.Listener = l
	}
	s.gone = make(chan struct{})
	if s.o.TLS != nil {
		h.TLS, h.EnableHTTP2 = s.o.TLS.Clone(), true
		h.StartTLS()
	} else {
		h.Config.Protocols = new(http.Protocols)
		h.Config.Protocols.SetHTTP1(true)
		h.Config.Protocols.SetUnencryptedHTTP2(true)
		h.Start()
	}
	s.http, s.o.Addr = h, h.Listener.Addr().String()
	return nil
}

// Close ends all connections, and answers no more.
func (s *Server) Close() {
	s.mu.Lock()
	h := s.http
	s.http = nil
	if h != nil {
		close(s.gone)
	}
	s.mu.Unlock()
	if h != nil {
		h.CloseClientConnections()
		h.Close()
	}
}

// Addr is HOST:PORT, also when it is closed.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Addr
}

// URL is that of the server.
func (s *Server) URL() string {
	if s.o.TLS != nil {
		return "https://" + s.Addr()
	}
	return "http://" + s.Addr()
}

// CA is a file with the certificate that a client has to trust.
func (s *Server) CA(tb testing.TB) string {
	tb.Helper()
	s.mu.Lock()
	cert := s.http.Certificate()
	s.mu.Unlock()
	path := filepath.Join(tb.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Requests are all that came, in the order of their ends.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Complaints are what the real server takes without a word, but serves badly, or not at all: each is a mistake of the sender's.
func (s *Server) Complaints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.complaints...)
}

func (s *Server) complain(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complaints = append(s.complaints, text)
}

// tally notes of a request what is known when it has ended.
type tally struct {
	http.ResponseWriter
	body io.ReadCloser
	r    Request
}

func (t *tally) WriteHeader(status int) {
	if t.r.Status == 0 {
		t.r.Status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *tally) Write(b []byte) (int, error) {
	if t.r.Status == 0 {
		t.r.Status = http.StatusOK
	}
	return t.ResponseWriter.Write(b)
}

func (t *tally) Unwrap() http.ResponseWriter { return t.ResponseWriter }
func (t *tally) Close() error                { return t.body.Close() }

func (t *tally) Read(b []byte) (int, error) {
	n, err := t.body.Read(b)
	t.r.Wire += int64(n)
	return n, err
}

// ServeHTTP answers as the real server does, or as the next Fault says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := s.fault()
	t := &tally{ResponseWriter: w, body: r.Body, r: Request{Path: r.URL.Path, Proto: r.Proto, Header: r.Header.Clone(), Fault: f != nil}}
	r.Body = t
	r = r.WithContext(context(r, &t.r))
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests = append(s.requests, t.r)
	}()
	if f != nil {
		s.fail(f, t, r)
		return
	}
	s.serve(t, r)
	if t.r.Status == 0 { // nothing was written
		t.r.Status = http.StatusOK
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if s.o.Authorization != nil && !s.o.Authorization(r.Header.Get("Authorization")) {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.o.Limits.Body)
	s.mux.ServeHTTP(w, r)
}
