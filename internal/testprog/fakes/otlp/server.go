// Package otlp is a strict server for OpenTelemetry's profiles and metrics, over gRPC and HTTP, for tests. It refuses whatever the
// protocol's text (opentelemetry-proto, profiles.proto and docs/specification.md) says must not or should not be, keeps what it took, and
// fails as it is told to.
package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // requests may be compressed
	"google.golang.org/grpc/stats"
)

// Options of a Server.
type Options struct {
	TLS        *tls.Config       // nil: plain
	GRPC, HTTP string            // addresses to listen on; "": some port of 127.0.0.1
	MaxRequest int               // bytes; 0: 4 MiB
	Headers    map[string]string // that each request must have, such as "authorization"
}

// Fault is what happens to one request. Its zero value is none.
type Fault struct {
	Code       codes.Code    // gRPC: the answer
	RetryDelay time.Duration // with Code: in the answer
	Status     int           // HTTP: the answer
	RetryAfter string        // with Status: a header
	Location   string        // with Status: a header
	Plain      bool          // with Status: the body is text
	Rejected   int64         // profiles or data points that are not taken: partial success
	Message    string        // with each of these

	Garbage bool // the answer is no message
	Page    bool // HTTP: the answer is a web page
	Huge    bool // the answer is longer than anybody wants
	Hang    bool // there is no answer
	Slow    bool // the answer has a byte a second
	Reset   bool // the connection is reset in the middle of the request
	Lost    bool // the request is taken, and the connection reset instead of an answer
}

// Server is a server.
type Server struct {
	o        Options
	grpc     *grpc.Server
	http     *http.Server
	grpcAddr string
	httpAddr string
	stopped  chan struct{}
	stop     sync.Once
	wires    wires

	mu       sync.Mutex
	faults   []Fault
	requests int
	zipped   int
	refused  []error
	taken    []pprofile.Profiles
	profiles map[key]*Profile
	ids      map[pprofile.ProfileID]key
	points   map[string]Point
	metrics  int
}

// Start starts a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.MaxRequest == 0 {
		o.MaxRequest = 4 << 20
	}
	s := &Server{o: o, stopped: make(chan struct{}), profiles: map[key]*Profile{}, ids: map[pprofile.ProfileID]key{}, points: map[string]Point{}}
	s.wires.onCut = func() { s.next() }
	opts := []grpc.ServerOption{grpc.MaxRecvMsgSize(o.MaxRequest), grpc.UnaryInterceptor(s.intercept), grpc.StatsHandler(payloads{s})}
	if o.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	s.grpc = grpc.NewServer(opts...)
	pprofileotlp.RegisterGRPCServer(s.grpc, &profileServer{s: s})
	pmetricotlp.RegisterGRPCServer(s.grpc, &metricServer{s: s})
	s.http = &http.Server{Handler: s.handler(), TLSConfig: o.TLS.Clone(), ReadHeaderTimeout: 10 * time.Second}
	var ends sync.WaitGroup
	s.grpcAddr = serve(t, &ends, o.GRPC, &s.wires, s.grpc.Serve)
	s.httpAddr = serve(t, &ends, o.HTTP, &s.wires, func(l net.Listener) error {
		if o.TLS != nil {
			return s.http.ServeTLS(l, "", "")
		}
		return s.http.Serve(l)
	})
	t.Cleanup(func() { s.Stop(); ends.Wait() })
	return s
}

func serve(t testing.TB, ends *sync.WaitGroup, addr string, w *wires, run func(net.Listener) error) string {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ends.Go(func() {
		if err := run(&listener{l, w}); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it began, too
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// Stop ends the server, at once.
func (s *Server) Stop() {
	s.stop.Do(func() {
		close(s.stopped)
		s.wires.reset()
		s.grpc.Stop()
		_ = s.http.Close()
	})
}

// GRPC is HOST:PORT.
func (s *Server) GRPC() string { return s.grpcAddr }

// HTTP is a URL.
func (s *Server) HTTP() string {
	if s.o.TLS != nil {
		return "https://" + s.httpAddr
	}
	return "http://" + s.httpAddr
}

// Inject makes the next requests fail, one for each fault.
func (s *Server) Inject(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
	s.arm()
}

// arm prepares what has to happen before the next request is read. mu is held.
func (s *Server) arm() {
	s.wires.cut.Store(len(s.faults) > 0 && s.faults[0].Reset)
}

// next counts a request, and says what happens to it.
func (s *Server) next() (f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if len(s.faults) > 0 {
		f, s.faults = s.faults[0], s.faults[1:]
		s.arm()
	}
	s.wires.slow.Store(f.Slow)
	return f
}

// Requests is how many came, those included that were reset while they were read.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Compressed is how many requests were.
func (s *Server) Compressed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zipped
}

func (s *Server) compressed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zipped++
}

// payloads is a stats.Handler that knows what was compressed.
type payloads struct{ s *Server }

// HandleRPC is called by gRPC.
func (p payloads) HandleRPC(_ context.Context, r stats.RPCStats) {
	if in, ok := r.(*stats.InPayload); ok && in.CompressedLength < in.Length {
		p.s.compressed()
	}
}

// TagRPC is called by gRPC.
func (payloads) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn is called by gRPC.
func (payloads) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn is called by gRPC.
func (payloads) HandleConn(context.Context, stats.ConnStats) {}

// Refused are the reasons of what was not taken because of itself.
func (s *Server) Refused() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.refused...)
}

func (s *Server) refuse(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, err)
	return err
}

// wait is how a request hangs: until the client or the server gives up.
func (s *Server) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-s.stopped:
	}
	return context.Canceled
}
