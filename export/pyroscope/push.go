package pyroscope

import (
	"context"
	"fmt"
	"net/url"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

// sender is how one request is sent, bounded in time, and judged.
func (e *Exporter) sender(base *url.URL) func(context.Context, *request) error {
	call := e.pushTo(base)
	if e.o.API == APIIngest {
		call = e.ingestTo(base)
	}
	return func(ctx context.Context, r *request) error {
		ctx, cancel := context.WithTimeout(ctx, e.o.Timeout)
		defer cancel()
		ctx, a := withAnswer(ctx)
		if d := a.verdict(call(ctx, r)); d != nil {
			return fmt.Errorf("pyroscope %s: %s profile of process %d: %w", base.Host, r.profile.Kind, r.profile.PID, d)
		}
		return nil
	}
}

// pushTo sends one profile a request: of several the server would take some and refuse others.
func (e *Exporter) pushTo(base *url.URL) func(context.Context, *request) error {
	client := pushv1connect.NewPusherServiceClient(e.client, base.String(), connect.WithReadMaxBytes(maxAnswer))
	return func(ctx context.Context, r *request) error {
		labels := make([]*typesv1.LabelPair, len(r.series))
		for i, l := range r.series {
			labels[i] = &typesv1.LabelPair{Name: l.Name, Value: l.Value}
		}
		_, err := client.Push(ctx, connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{{
			Labels: labels, Samples: []*pushv1.RawSample{{RawProfile: r.gzip}},
		}}}))
		return err
	}
}
