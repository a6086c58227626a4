// Package parca is a receiver of profiles that is as strict as Parca: it refuses what Parca refuses, with its codes (as measured on
// a server of July 2026), and fails the test where Parca would take something that does harm to it. It can be told to fail.
package parca

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // a client may use it
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pprofd/pprofd/export/parca/profilestorepb"
)

// MaxMessage is what the server takes at once, in bytes.
const MaxMessage = 64 << 20

// Options of a Server.
type Options struct {
	Addr  string      // where to listen; "": a free port of 127.0.0.1
	TLS   *tls.Config // nil: none, as the real one
	Token string      // that clients have to send, as a proxy before the server may demand; "": none
	// Harm is told of what the real server takes, and would suffer from. nil: that fails the test.
	Harm func(what string)
}

// Fault is what goes wrong below the protocol, for connections that are made from then on; those that there are, are closed.
type Fault int32

// Faults.
const (
	None       Fault = iota
	Slow             // a byte a second is read
	Reset            // the connection is reset in the middle of the request
	NoProtocol       // something else answers
	Hang             // requests are taken, and not answered
	Garbage          // requests are done, and answered by bytes that are no message
	Lose             // requests are done, and the connection is closed before the answer
)

// Server is a fake Parca on a real socket.
type Server struct {
	Addr string

	t     testing.TB
	o     Options
	grpc  *grpc.Server
	fault atomic.Int32
	met   atomic.Int32
	ended chan struct{}
	done  sync.WaitGroup
	stop  sync.Once

	mu       sync.Mutex
	refusal  *status.Status
	refused  int // how many more times; < 0: always
	requests int
	stored   []Stored
	conns    map[*conn]bool
}

// Start makes a server that ends with the test, or by Stop.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", o.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: l.Addr().String(), t: t, o: o, ended: make(chan struct{}), conns: make(map[*conn]bool)}
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(MaxMessage), grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(encodingproto.Name), s})}
	if o.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	s.grpc = grpc.NewServer(options...)
	profilestorepb.RegisterProfileStoreServiceServer(s.grpc, service{s: s})
	s.done.Go(func() {
		if err := s.grpc.Serve(listener{l, s}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("fake Parca: %v", err)
		}
	})
	t.Cleanup(s.Stop)
	return s
}

// Stop ends the server and its connections at once. Its port is free then; another may begin there.
func (s *Server) Stop() {
	s.stop.Do(func() {
		close(s.ended)
		s.grpc.Stop()
		s.done.Wait()
	})
}

// Refuse has the next n requests, or all that follow where n < 0, answered by a code and a message.
func (s *Server) Refuse(n int, code codes.Code, message string) {
	s.RefuseBy(n, status.New(code, message))
}

// RefuseBy is Refuse with details.
func (s *Server) RefuseBy(n int, with *status.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal, s.refused = with, n
}

// Fault has what follows go wrong; None ends that.
func (s *Server) Fault(f Fault) {
	s.fault.Store(int32(f))
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Conn.Close()
	}
}

func (s *Server) has(f Fault) bool { return Fault(s.fault.Load()) == f }

// Requests is how many have come, whatever became of them.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Met is how many connections have met Slow or Reset.
func (s *Server) Met() int { return int(s.met.Load()) }

// Stored are the profiles that were taken, in order, those that came twice included.
func (s *Server) Stored() []Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Stored(nil), s.stored...)
}

// Forget forgets what was stored.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored, s.requests = nil, 0
}

func (s *Server) harm(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if s.o.Harm != nil {
		s.o.Harm(what)
		return
	}
	s.t.Errorf("Parca would take this, and suffer: %s", what)
}

// wait ends with the server or the request.
func (s *Server) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-s.ended:
	}
	return status.Error(codes.Unavailable, "hung")
}

type service struct {
	profilestorepb.UnimplementedProfileStoreServiceServer
	s *Server
}

func (v service) WriteRaw(ctx context.Context, r *profilestorepb.WriteRawRequest) (*profilestorepb.WriteRawResponse, error) {
	s := v.s
	s.mu.Lock()
	s.requests++
	refusal := s.refusal
	if s.refused == 0 {
		refusal = nil
	} else if s.refused > 0 {
		s.refused--
	}
	s.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	switch {
	case s.has(Hang):
		return nil, s.wait(ctx)
	case refusal != nil && refusal.Code() != codes.OK:
		return nil, refusal.Err()
	case s.o.Token != "" && fmt.Sprint(md.Get("authorization")) != "[Bearer "+s.o.Token+"]":
		return nil, status.Error(codes.Unauthenticated, "no valid token")
	}
	stored, err := s.read(r)
	if err != nil {
		return nil, err // nothing of the request is stored
	}
	s.mu.Lock()
	for i := range stored {
		stored[i].Metadata = md
	}
	s.stored = append(s.stored, stored...)
	s.mu.Unlock()
	if s.has(Lose) {
		s.Fault(Lose)
		return nil, s.wait(ctx)
	}
	return &profilestorepb.WriteRawResponse{}, nil
}

// codec garbles answers.
type codec struct {
	encoding.CodecV2
	s *Server
}

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if _, is := v.(*profilestorepb.WriteRawResponse); is && c.s.has(Garbage) {
		return mem.BufferSlice{mem.SliceBuffer("\xff\xff garbage")}, nil
	}
	return c.CodecV2.Marshal(v)
}

// listener makes connections fail.
type listener struct {
	net.Listener
	s *Server
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.s.has(NoProtocol) {
			return l.s.track(c), nil
		}
		l.s.done.Go(func() { answerAnything(c) })
	}
}

// answerAnything is what clients get that came to another kind of server.
func answerAnything(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\nProtocol mismatch.\r\n"))
	_, _ = io.Copy(io.Discard, c) // unread bytes would make it a reset
}

func (s *Server) track(c net.Conn) net.Conn {
	t := &conn{Conn: c, s: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[t] = true
	return t
}

type conn struct {
	net.Conn
	s    *Server
	read int
	met  sync.Once
}

const resetAfter = 512 // bytes: the headers of the first request are through by then

func (c *conn) Read(b []byte) (int, error) {
	switch {
	case c.s.has(Slow):
		c.met.Do(func() { c.s.met.Add(1) })
		select {
		case <-time.After(time.Second):
		case <-c.s.ended:
		}
		b = b[:min(1, len(b))]
	case c.s.has(Reset):
		b = b[:min(resetAfter, len(b))]
	}
	n, err := c.Conn.Read(b)
	c.read += n
	if c.read > resetAfter && c.s.has(Reset) {
		c.met.Do(func() { c.s.met.Add(1) })
		if t, ok := c.Conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		c.Conn.Close()
	}
	return n, err
}

func (c *conn) Close() error {
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	return c.Conn.Close()
}
