package pyroscope

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/grafana/pyroscope-go/upstream"
	"github.com/grafana/pyroscope-go/upstream/remote"
)

// ingestTo sends by /ingest, as Grafana's own client does, with its code. That has a queue and a goroutine, never says what became
// of an upload but in a log, and knows no context: so there is one Remote for one upload, which uses our client, whose
// transport sees the answer.
func (e *Exporter) ingestTo(base *url.URL) func(context.Context, *request) error {
	address := base.String()
	return func(ctx context.Context, r *request) error {
		said := &lastError{}
		upload, err := remote.NewRemote(remote.Config{
			Address: address, Threads: 1, Logger: said,
			HTTPClient: client(func(r *http.Request) (*http.Response, error) { return e.client.Do(r.WithContext(ctx)) }),
		})
		if err != nil {
			return err
		}
		upload.Start()
		upload.Upload(job(r))
		upload.Flush()
		upload.Stop()
		return said.err
	}
}

func job(r *request) *upstream.UploadJob {
	p := r.profile
	return &upstream.UploadJob{
		Name: application(r), StartTime: p.Start, EndTime: p.Start.Add(p.Duration), SpyName: spy, SampleRate: 100, Units: "samples",
		AggregationType: "sum", Format: upstream.FormatPprof, Profile: r.gzip, SampleTypeConfig: r.kind.config,
	}
}

// application is the name with the labels: NAME{KEY=VALUE,...}. There is no way to quote; what would end a value is replaced. The server
// adds __name__, __delta__ and pyroscope_spy itself.
func application(r *request) string {
	var b strings.Builder
	separator := "{"
	for _, l := range r.series {
		switch l.Name {
		case labelService:
			b.WriteString(strings.Map(nameRune, l.Value))
		case labelName, labelDelta, labelSpy:
			continue
		}
	}
	for _, l := range r.series {
		if l.Name == labelName || l.Name == labelDelta || l.Name == labelSpy {
			continue
		}
		b.WriteString(separator + l.Name + "=" + strings.Map(valueRune, l.Value))
		separator = ","
	}
	b.WriteString("}")
	return b.String()
}

// nameRune: the name of an application has letters, digits and _ . / - only. The label service_name has all of it.
func nameRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_./-", r):
		return r
	}
	return '_'
}

func valueRune(r rune) rune {
	if r == ',' || r == '}' {
		return '_'
	}
	return r
}

// client is what Remote wants of one.
type client func(*http.Request) (*http.Response, error)

func (c client) Do(r *http.Request) (*http.Response, error) { return c(r) }

// lastError takes what Remote logs as an error: the only word that it has of a failure.
type lastError struct{ err error }

func (*lastError) Infof(string, ...any)  {}
func (*lastError) Debugf(string, ...any) {}

func (l *lastError) Errorf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			l.err = err
			return
		}
	}
	l.err = fmt.Errorf(format, args...)
}
