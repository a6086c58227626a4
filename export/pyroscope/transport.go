package pyroscope

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pprofd/pprofd/export"
)

// Bounds of what is read of an answer: those of the server are empty, or some text.
const (
	maxAnswer = 1 << 20
	maxSaid   = 16 << 10
)

// transport authorizes requests, and notes what comes back in the answer that the request's context holds.
type transport struct {
	o    *Options
	base http.RoundTripper
}

// newClient follows no redirection: it would lose the body, or take the secrets elsewhere.
func newClient(o *Options) (*http.Client, error) {
	config, err := o.TLS.Config()
	if err != nil {
		return nil, err
	}
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 8, IdleConnTimeout: 2 * time.Minute, DisableCompression: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}, // a connection that died unnoticed
	}
	return &http.Client{
		Transport:     &transport{o: o, base: base},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// secretError is one of the agent's own side: a file that cannot be read.
type secretError struct{ err error }

func (e *secretError) Error() string { return e.err.Error() }
func (e *secretError) Unwrap() error { return e.err }

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	authorization, err := t.authorization()
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, &secretError{err}
	}
	r = r.Clone(r.Context())
	for name, value := range t.o.Headers {
		r.Header.Set(name, value)
	}
	if t.o.Tenant != "" {
		r.Header.Set("X-Scope-OrgID", t.o.Tenant)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	res, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if a, ok := r.Context().Value(answerKey{}).(*answer); ok {
		a.note(res)
	}
	return res, nil
}

func (t *transport) authorization() (string, error) {
	switch {
	case t.o.BearerTokenFile != "":
		token, err := export.ReadSecret(t.o.BearerTokenFile)
		if err != nil {
			return "", fmt.Errorf("bearer_token_file: %w", err)
		}
		return "Bearer " + token, nil
	case t.o.BasicAuth.Username != "":
		password, err := export.ReadSecret(t.o.BasicAuth.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("basic_auth: %w", err)
		}
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(t.o.BasicAuth.Username+":"+password)), nil
	}
	return "", nil
}

// answer is what came back for one request, whatever client library asked.
type answer struct {
	status int // 0: nothing came
	header http.Header
	body   []byte // its beginning, of answers other than 200
}

type answerKey struct{}

// withAnswer is for one request: at its end the answer is known.
func withAnswer(ctx context.Context) (context.Context, *answer) {
	a := &answer{}
	return context.WithValue(ctx, answerKey{}, a), a
}

// note reads what the server says of a failure, and bounds what others read of it.
func (a *answer) note(res *http.Response) {
	a.status, a.header = res.StatusCode, res.Header
	if a.status == http.StatusOK {
		res.Body = limited{io.LimitReader(res.Body, maxAnswer), res.Body}
		return
	}
	a.body, _ = io.ReadAll(io.LimitReader(res.Body, maxSaid)) // what came before an error is better than nothing
	res.Body.Close()
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(a.body)), int64(len(a.body))
}

type limited struct {
	io.Reader
	io.Closer
}
