package pyroscope

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/pprofd/pprofd/export"
)

// APIs of the server that profiles are sent by.
const (
	APIPush   = "push"   // push.v1.PusherService/Push, of Pyroscope since 1.0 and Grafana Cloud
	APIIngest = "ingest" // POST /ingest, which older servers and many proxies take
)

const defaultTimeout = 10 * time.Second

// Options says where profiles go.
type Options struct {
	URL             string // of the server: http://HOST:4040, https://HOST/path
	API             string // APIPush (also if empty) or APIIngest
	Tenant          string // X-Scope-OrgID
	BasicAuth       BasicAuth
	BearerTokenFile string
	TLS             export.TLS
	Headers         map[string]string // are sent with each request
	Timeout         time.Duration     // of one request; 0: 10 s
	// SampleLabels names the labels of samples (what the program set with pprof.Do) that become labels of series there, each
	// combination of values a series of its own. nil: all, but those of too many values in one profile; empty: none. In any
	// case the samples stay.
	SampleLabels []string
}

// BasicAuth is a user's name and the file that the password is in.
type BasicAuth struct{ Username, PasswordFile string }

// reserved are headers that belong to the protocol, or have options of their own.
var reserved = map[string]string{
	"authorization": "give basic_auth or bearer_token_file instead, whose secrets are in files",
	"x-scope-orgid": "give tenant instead", "content-type": "", "content-length": "", "content-encoding": "", "transfer-encoding": "",
	"connection": "", "host": "", "connect-protocol-version": "", "connect-timeout-ms": "", "accept-encoding": "", "te": "", "trailer": "", "upgrade": "",
}

// check completes o and says what is wrong with it. The text of no secret is in its errors.
func (o *Options) check() (*url.URL, error) {
	if o.API == "" {
		o.API = APIPush
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	basic := o.BasicAuth.Username != "" || o.BasicAuth.PasswordFile != ""
	switch {
	case o.API != APIPush && o.API != APIIngest:
		return nil, fmt.Errorf("api %q: there are %s and %s", o.API, APIPush, APIIngest)
	case o.Timeout < 0:
		return nil, fmt.Errorf("timeout %v: it must be positive", o.Timeout)
	case basic && o.BearerTokenFile != "":
		return nil, errors.New("basic_auth and bearer_token_file exclude each other: the server takes one Authorization")
	case basic && (o.BasicAuth.Username == "" || o.BasicAuth.PasswordFile == ""):
		return nil, errors.New("basic_auth: username and password_file belong together")
	case strings.ContainsAny(o.Tenant, "|/") || !httpguts.ValidHeaderFieldValue(o.Tenant):
		return nil, fmt.Errorf("tenant %q: profiles are written to one tenant, whose name has no | and no /", o.Tenant)
	}
	return base, o.checkHeaders()
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the text, where a password may be
		}
		return nil, fmt.Errorf("url: %w", err)
	}
	switch {
	case u.User != nil:
		return nil, errors.New("url: a user and a password do not belong there: give basic_auth, whose password is in a file")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("url %q: http://HOST:PORT or https://HOST:PORT is wanted", text)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("url: it ends with its path: ? and # do not belong there")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

func (o *Options) checkHeaders() error {
	for name, value := range o.Headers {
		advice, is := reserved[strings.ToLower(name)]
		switch {
		case is && advice != "":
			return fmt.Errorf("header %q: %s", name, advice)
		case is:
			return fmt.Errorf("header %q: it belongs to the protocol", name)
		case !httpguts.ValidHeaderFieldName(name):
			return fmt.Errorf("header %q: this is no name of a header", name)
		case !httpguts.ValidHeaderFieldValue(value):
			return fmt.Errorf("header %q: its value is not one line of text", name)
		}
	}
	return nil
}
