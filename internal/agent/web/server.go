package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Access says who may call a handler.
type Access int

// Accesses.
const (
	Protected Access = iota // who has the token, a certificate, or the socket
	Open                    // everybody who can connect
)

// Options are what a Server shows of the agent.
type Options struct {
	// Registry is what /metrics shows; the server adds its own. nil: a new one.
	Registry *prometheus.Registry
	// Healthy says why the agent has to be started anew, Ready why it does not profile (yet). nil: no reason. The texts are
	// open to everybody who can connect.
	Healthy, Ready func() error
	Log            *slog.Logger // nil: nothing is logged
}

// Limits on what a client can make the agent spend.
const (
	maxConns     = 512 // at a time, more are closed at once: who scrapes many processes waits for a profile of each
	maxHeader    = 16 << 10
	maxBody      = 1 << 20
	headerTime   = 5 * time.Second
	idleTime     = 30 * time.Second
	openTime     = 15 * time.Second // to answer what is open; profiles take as long as they do
	shutdownTime = 2 * time.Second  // of the 5 s that SIGTERM leaves
	maxScrapes   = 4
)

// Server is the HTTP front. Handlers are added before Serve.
type Server struct {
	config Config
	mux    *http.ServeMux
	http   *http.Server
	listen net.Listener
	token  atomic.Pointer[token] // nil inside: nobody needs one
	stats  stats
}

// New listens and knows whom to let in, or says what is wrong. Nothing is answered before Serve.
func New(c Config, o Options) (*Server, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c, mux: http.NewServeMux(), stats: newStats()}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	if err := o.Registry.Register(&s.stats); err != nil {
		return nil, fmt.Errorf("metrics of the HTTP server: %w", err)
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	s.http.Protocols = new(http.Protocols)
	s.http.Protocols.SetHTTP1(true)
	s.own(o)
	return s, s.open()
}

func (s *Server) own(o Options) {
	s.Handle(Open, "GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError, Timeout: openTime / 2,
	}))
	s.Handle(Open, "GET /healthz", state(o.Healthy))
	s.Handle(Open, "GET /readyz", state(o.Ready))
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /debug/pprof/": pprof.Index, "GET /debug/pprof/cmdline": pprof.Cmdline, "GET /debug/pprof/profile": pprof.Profile,
		"GET /debug/pprof/trace": pprof.Trace, "GET /debug/pprof/symbol": pprof.Symbol, "POST /debug/pprof/symbol": pprof.Symbol,
	} {
		s.Handle(Protected, pattern, h)
	}
}

func state(f func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if f != nil {
			if err := f(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintln(w, err)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
}

// Handle adds a handler for a pattern of http.ServeMux. A protected handler may take its time; an open one has 15 s.
func (s *Server) Handle(access Access, pattern string, h http.Handler) {
	s.mux.Handle(pattern, guarded{access, h})
}

// guarded is what the mux finds: serve looks at it before it calls the handler.
type guarded struct {
	access Access
	http.Handler
}

// serve decides whether a request is answered.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	patience(w, time.Now().Add(openTime))
	found, pattern := s.mux.Handler(r)
	g, known := found.(guarded)
	access := Protected // of what does not exist, too: only those who are let in learn what does
	if known {
		access = g.access
	}
	if refused := s.refuse(r, access); refused != nil {
		s.stats.refused(refused.reason)
		if refused.code == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", `Basic realm="pprofd", charset="UTF-8"`)
		}
		http.Error(w, refused.text, refused.code)
		return
	}
	if access == Protected {
		patience(w, time.Time{})
		h.Set("Cache-Control", "no-store")
	}
	s.stats.request(pattern)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	s.mux.ServeHTTP(w, r)
}

// patience bounds how long a client may take to send the rest of its request and to read the answer.
func patience(w http.ResponseWriter, until time.Time) {
	c := http.NewResponseController(w)
	_ = errors.Join(c.SetReadDeadline(until), c.SetWriteDeadline(until)) // connections of HTTP/1 have both
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listen.Addr() }

// Serve answers until ctx is done, and then gives requests 2 s to end. The server is closed afterwards.
func (s *Server) Serve(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.listen) }()
	select {
	case err := <-done: // nobody has asked for that
		return errors.Join(fmt.Errorf("serve HTTP on %s: %w", s.config.Listen, err), s.http.Close())
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := s.http.Shutdown(stop); err != nil {
		_ = s.http.Close() // what takes longer is cut off
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", s.config.Listen, err)
	}
	return nil
}

// Close is for a server that does not Serve.
func (s *Server) Close() error { return s.listen.Close() }
