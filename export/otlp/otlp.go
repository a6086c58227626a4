// Package otlp sends profiles, and the agent's own metrics, in OpenTelemetry's protocol, over gRPC and over HTTP.
//
// The signal "profiles" is in development (v1development): both sides have to be of a similar age. What is sent follows
// opentelemetry-proto's profiles.proto as the collector's module pdata/pprofile has it, and OpenTelemetry's semantic conventions:
//
//   - A pprof profile becomes one request: one resource (the process), one scope (pprofd), and in it one profile for each of the
//     sample types, since OTLP's profiles have one each; they share the tables of stacks, locations, functions and strings.
//     Their samples are as many and in the same order, so that readers can put them together again.
//   - Profiles of a heap are reduced to what is in use (inuse_*), and have no duration: they show an instant. All others count
//     what happened within their duration; those of allocations are reduced to alloc_*.
//   - A profile that is larger than a server takes (Options.MaxRequest) is sent in parts, whose times differ by nanoseconds.
//   - A profile's id is made of the process, the kind, the time and the part: sent again, it is the same.
package otlp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export"
)

// Options say where to send to, and how. Endpoint must be given.
type Options struct {
	// Endpoint is HOST:PORT, or a URL; the ports are 4317 (grpc) and 4318 (http) by custom. https:// is with TLS, http:// without;
	// HOST:PORT with TLS, except to this host, where TLS is used if any of its options is set. The URL's path, if there is one,
	// comes before /v1development/profiles (http only).
	Endpoint        string
	Protocol        string // "grpc" (also ""), "http"
	Insecure        bool   // HOST:PORT is without TLS, wherever it is
	TLS             export.TLS
	BearerTokenFile string // its content is sent as authorization; read each time
	Headers         map[string]string
	Timeout         time.Duration // of a request; 0: 30 s
	MaxRequest      int           // bytes before compression that the server takes; 0: 4 MiB, a gRPC server's default
	Version         string        // of pprofd, for the scope
	Interval        time.Duration // between two sets of metrics; 0: a minute
	// Failed is told of each set of metrics that could not be sent; may be nil.
	Failed func(error)
}

const (
	defaultTimeout  = 30 * time.Second
	defaultRequest  = 4 << 20 // google.golang.org/grpc: defaultServerMaxReceiveMessageSize
	defaultInterval = time.Minute
)

// server is where requests go to.
type server struct {
	host  string // HOST:PORT
	path  string // of the URL, without a slash at its end
	plain bool   // without TLS
}

// server is what Endpoint and Insecure say.
func (o *Options) server() (server, error) {
	scheme, rest, isURL := strings.Cut(o.Endpoint, "://")
	if !isURL {
		host, port, err := net.SplitHostPort(o.Endpoint)
		if err != nil || host == "" || port == "" {
			return server{}, fmt.Errorf("otlp: endpoint %q: write it as HOST:PORT or as a URL", o.Endpoint)
		}
		return server{host: o.Endpoint, plain: o.Insecure || export.Local(host) && o.TLS == export.TLS{}}, nil
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || scheme != "http" && scheme != "https" {
		return server{}, fmt.Errorf("otlp: endpoint %q: a URL is http://HOST:PORT or https://HOST:PORT, maybe with a path", scheme+"://"+rest[strings.LastIndex(rest, "@")+1:])
	}
	s := server{host: u.Host, path: strings.TrimRight(u.Path, "/"), plain: scheme == "http"}
	if u.Port() == "" {
		s.host = net.JoinHostPort(u.Hostname(), map[bool]string{true: "80", false: "443"}[s.plain])
	}
	if s.plain && o.TLS != (export.TLS{}) {
		return server{}, fmt.Errorf("otlp: endpoint %q is without TLS, for which there are options: write https://", o.Endpoint)
	}
	return s, nil
}

// transport carries requests to a server.
type transport interface {
	// send returns once the server has answered, or an error says whether to send again.
	send(ctx context.Context, request []byte) (answer, error)
	close() error
}

// answer is a server's that took a request.
type answer struct {
	rejected int64  // profiles that it did not take
	message  string // why, or a warning
}

// Exporter sends profiles to one server. It is safe for concurrent use.
type Exporter struct {
	o        Options
	to       transport
	warnings warnings
}

var _ export.Exporter = (*Exporter)(nil)

// New makes an Exporter, which connects when there is something to send.
func New(o Options) (*Exporter, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxRequest == 0 {
		o.MaxRequest = defaultRequest
	}
	to, err := o.transport()
	if err != nil {
		return nil, err
	}
	return &Exporter{o: o, to: to}, nil
}

func (o *Options) transport() (transport, error) {
	switch o.Protocol {
	case "", "grpc":
		return newGRPC(o)
	case "http":
		return newHTTP(o)
	}
	return nil, fmt.Errorf("otlp: protocol %q: there are grpc and http", o.Protocol)
}

// Close ends connections; what is on its way fails.
func (x *Exporter) Close() error { return x.to.close() }

var errTooLarge = errors.New("one sample is larger than what the server takes")
