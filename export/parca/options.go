package parca

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pprofd/pprofd/export"
)

const defaultTimeout = 30 * time.Second

// Options say where to send to, and how. Address must be given.
type Options struct {
	// Address is HOST:PORT, http://HOST:PORT (without TLS) or https://HOST:PORT. HOST:PORT is with TLS, but to this host only where
	// one of its options is set. Parca itself has no TLS: a proxy before it does that. Its port is 7070.
	Address         string
	Insecure        bool // HOST:PORT is without TLS, wherever it is
	TLS             export.TLS
	BearerTokenFile string            // its content is sent as authorization; it is read for each request
	Headers         map[string]string // are sent with each request, such as projectID for Polar Signals Cloud
	Timeout         time.Duration     // of one request; 0: 30 s
	// SampleLabels names labels of samples (what a program sets with pprof.Do) that become labels of series: each combination
	// of their values is a series of its own, maxSeries of a profile at most. Other labels of samples cannot be found there.
	SampleLabels []string
	Version      string // of pprofd, for the server's log
}

// target is what Options.Address leads to.
type target struct {
	host     string // HOST:PORT
	security credentials.TransportCredentials
}

// check completes o and says what is wrong with it. The text of no secret is in its errors.
func (o *Options) check() (target, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Timeout < 0 {
		return target{}, fmt.Errorf("timeout %v: it must be positive", o.Timeout)
	}
	if err := o.checkHeaders(); err != nil {
		return target{}, err
	}
	host, plain, err := o.server()
	if err != nil {
		return target{}, err
	}
	if plain {
		return target{host, insecure.NewCredentials()}, nil
	}
	config, err := o.TLS.Config()
	if err != nil {
		return target{}, err
	}
	return target{host, credentials.NewTLS(config)}, nil
}

// server is where requests go to, and whether without TLS.
func (o *Options) server() (host string, plain bool, err error) {
	secured := o.TLS != export.TLS{}
	scheme, _, isURL := strings.Cut(o.Address, "://")
	switch {
	case !isURL:
		name, port, err := net.SplitHostPort(o.Address)
		if err != nil || name == "" || port == "" {
			return "", false, fmt.Errorf("address %q: HOST:PORT is wanted, such as localhost:7070", o.Address)
		}
		host, plain = o.Address, o.Insecure || export.Local(name) && !secured
	case scheme != "http" && scheme != "https":
		return "", false, fmt.Errorf("address: %s:// is unknown: there are http:// and https://", scheme)
	default:
		u, err := url.Parse(o.Address)
		if err != nil || u.Port() == "" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return "", false, fmt.Errorf("address: %s://HOST:PORT is wanted, with no more", scheme)
		}
		host, plain = u.Host, scheme == "http"
		if o.Insecure && !plain {
			return "", false, errors.New("address: https:// and insecure contradict each other")
		}
	}
	if plain && secured {
		return "", false, errors.New("connections are without TLS, for which there are options: write https:// before the address, or leave the options out")
	}
	return host, plain, nil
}

// reserved are headers of the protocol, or with options of their own.
var reserved = map[string]string{
	"authorization": "give bearer_token_file instead, whose secret is in a file",
	"content-type":  "it belongs to the protocol", "te": "it belongs to the protocol", "user-agent": "it is pprofd's",
	"host": "it belongs to the protocol", "connection": "it belongs to the protocol", "content-length": "it belongs to the protocol",
}

func (o *Options) checkHeaders() error {
	seen := make(map[string]bool, len(o.Headers))
	for name, value := range o.Headers {
		lower := strings.ToLower(name)
		switch {
		case reserved[lower] != "":
			return fmt.Errorf("header %q: %s", name, reserved[lower])
		case strings.HasPrefix(lower, "grpc-") || !httpguts.ValidHeaderFieldName(name):
			return fmt.Errorf("header %q: no header may be called that with gRPC", name)
		case strings.HasSuffix(lower, "-bin"):
			return fmt.Errorf("header %q: names that end in -bin are for binary values, which cannot be given", name)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			return fmt.Errorf("header %q: its value is not one line of ASCII", name)
		case seen[lower]:
			return fmt.Errorf("header %q is there twice", name)
		}
		seen[lower] = true
	}
	return nil
}
