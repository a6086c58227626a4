package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"

	"github.com/pprofd/pprofd/export"
)

const (
	profilesPath = "/v1development/profiles"
	metricsPath  = "/v1/metrics"
	protobuf     = "application/x-protobuf"
	jsonType     = "application/json"
)

type httpTransport struct {
	url    string
	client *http.Client
}

func newHTTP(o *Options) (*httpTransport, error) {
	url, client, err := o.httpClient()
	if err != nil {
		return nil, err
	}
	return &httpTransport{url: url + profilesPath, client: client}, nil
}

// httpClient is one that sends headers and token with each request to url, and to nowhere else.
func (o *Options) httpClient() (url string, client *http.Client, err error) {
	s, err := o.server()
	if err != nil {
		return "", nil, err
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   64, // as many as are on their way at a time
		ExpectContinueTimeout: time.Second,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWithin},
	}
	url = "http://" + s.host + s.path
	if !s.plain {
		url = "https://" + s.host + s.path
		if t.TLSClientConfig, err = o.tls(); err != nil {
			return "", nil, err
		}
	}
	return url, &http.Client{
		Transport: &authorized{o: o, to: t},
		// Another server than the one that is configured gets neither profiles nor tokens.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// authorized is a RoundTripper that adds headers.
type authorized struct {
	o  *Options
	to *http.Transport
}

// CloseIdleConnections is called by http.Client's.
func (a *authorized) CloseIdleConnections() { a.to.CloseIdleConnections() }

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	h, err := a.o.headers()
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	for k, v := range h {
		r.Header.Set(k, v)
	}
	r.Header.Set("User-Agent", a.o.agent())
	return a.to.RoundTrip(r)
}

func (t *httpTransport) close() error {
	t.client.CloseIdleConnections()
	return nil
}

func (t *httpTransport) send(ctx context.Context, request []byte) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(zipped(request)))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Content-Type", protobuf)
	r.Header.Set("Content-Encoding", "gzip")
	r.Header.Set(pprofileotlp.DevelopmentVersionHeader, pprofileotlp.DevelopmentVersion)
	resp, err := t.client.Do(r)
	if err != nil {
		return answer{}, notReached(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{}, notReached(fmt.Errorf("read the server's answer: %w", err))
	case len(body) > maxAnswer:
		return answer{}, &export.DeliveryError{Retry: export.Never, Reason: "garbage", Err: fmt.Errorf("the server's answer is longer than %d bytes", maxAnswer)}
	case resp.StatusCode != http.StatusOK:
		return answer{}, ofHTTP(resp, body, time.Now())
	}
	return read200(resp.Header.Get("Content-Type"), body)
}

var errNoServer = errors.New("what answers is no server for OTLP: its answer is of another type")

// read200 reads an answer with status 200. There are proxies and web servers that give it to whatever they are asked.
func read200(contentType string, body []byte) (answer, error) {
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case kind == jsonType:
		return readAnswer(body, (pprofileotlp.ExportResponse).UnmarshalJSON)
	case kind == protobuf, len(body) == 0:
		return readAnswer(body, (pprofileotlp.ExportResponse).UnmarshalProto)
	}
	return answer{}, &export.DeliveryError{Reason: "garbage", Err: fmt.Errorf("%w (%.100q)", errNoServer, contentType)}
}

var zips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level exists
	return z
}}

func zipped(b []byte) []byte {
	z := zips.Get().(*gzip.Writer)
	defer zips.Put(z)
	var out bytes.Buffer
	out.Grow(len(b)/3 + 64)
	z.Reset(&out)
	_, _ = z.Write(b) // into memory: it does not fail
	_ = z.Close()
	return out.Bytes()
}
