// Package parca sends profiles to Parca, or to what speaks its protocol: ProfileStoreService/WriteRaw over gRPC, one profile for each
// request.
//
//   - A process is a LabelSet, since servers drop the labels of samples; see Options.SampleLabels.
//   - What a kind of profile is called there, which of its values are sent, and whether it is of an instant or of a window, is in
//     a table (kinds.go). A duration of 0 tells a server that a profile is of an instant.
//   - Addresses in pprofd's profiles are those of the executable's file already, with its build ID.
//   - Servers do not recognize a profile that comes twice: one whose answer was lost counts twice there.
package parca

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/parca/profilestorepb"
)

const (
	maxMessage     = 64 << 20         // bytes that a server takes at once
	maxPause       = 5 * time.Second  // between two attempts to connect: the sender has pauses of its own
	connectTimeout = 10 * time.Second // of one attempt
	pingAfter      = 15 * time.Second // without a sign of life during a request
	pingWithin     = 8 * time.Second  // has the answer to a ping to be there, or the connection is given up
)

// Exporter sends profiles to one server. It is safe for concurrent use.
type Exporter struct {
	o      Options
	max    int // bytes of a message
	conn   *grpc.ClientConn
	client profilestorepb.ProfileStoreServiceClient
}

var _ export.Exporter = (*Exporter)(nil)

// New makes an Exporter, which connects when there is something to send.
func New(o Options) (*Exporter, error) {
	target, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("parca: %w", err)
	}
	pause := backoff.DefaultConfig
	pause.MaxDelay = maxPause
	conn, err := grpc.NewClient(target.host,
		grpc.WithTransportCredentials(target.security),
		grpc.WithUserAgent("pprofd/"+o.Version),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingWithin}),
	)
	if err != nil {
		return nil, fmt.Errorf("parca: address %q: %w", o.Address, err)
	}
	return &Exporter{o: o, max: maxMessage, conn: conn, client: profilestorepb.NewProfileStoreServiceClient(conn)}, nil
}

// Close ends connections; what is on its way fails.
func (x *Exporter) Close() error { return x.conn.Close() }

// Export sends p, or nothing where the server would keep nothing of it. Its errors are DeliveryErrors.
func (x *Exporter) Export(ctx context.Context, p *export.Profile) error {
	err := x.export(ctx, p)
	if e := export.RetryOf(err); e != nil {
		e.Err = fmt.Errorf("parca %s: %s profile of process %d: %w", x.o.Address, p.Kind, p.PID, e.Err)
	}
	return err
}

func (x *Exporter) export(ctx context.Context, p *export.Profile) error {
	series, err := x.series(p)
	if err != nil {
		return &export.DeliveryError{Retry: export.Never, Reason: "invalid", Err: err}
	}
	if len(series) == 0 {
		return nil
	}
	request := &profilestorepb.WriteRawRequest{Series: series, Normalized: true}
	if n := proto.Size(request); n > x.max {
		err := fmt.Errorf("its %d bytes are more than the %d that servers take", n, x.max)
		return &export.DeliveryError{Retry: export.Never, Reason: tooLarge, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, x.o.Timeout)
	defer cancel()
	if ctx, err = x.withHeaders(ctx); err != nil {
		return err
	}
	_, err = x.client.WriteRaw(ctx, request)
	return x.judged(err)
}

// series are p's: one, where its samples make no more.
func (x *Exporter) series(p *export.Profile) ([]*profilestorepb.RawProfileSeries, error) {
	parts, err := x.prepare(p)
	if err != nil {
		return nil, err
	}
	own := labels(p)
	list := make([]*profilestorepb.RawProfileSeries, 0, len(parts))
	for _, part := range parts {
		list = append(list, &profilestorepb.RawProfileSeries{
			Labels:  labelSet(own, part.labels),
			Samples: []*profilestorepb.RawSample{{RawProfile: part.gzip}},
		})
	}
	return list, nil
}

// withHeaders adds what the options say to a request.
func (x *Exporter) withHeaders(ctx context.Context) (context.Context, error) {
	list := make([]string, 0, 2*len(x.o.Headers)+2)
	for name, value := range x.o.Headers {
		list = append(list, strings.ToLower(name), value)
	}
	if x.o.BearerTokenFile != "" {
		token, err := export.ReadSecret(x.o.BearerTokenFile)
		if err != nil {
			return nil, &export.DeliveryError{Retry: export.Later, Reason: "secret", Err: fmt.Errorf("bearer token: %w", err)}
		}
		list = append(list, "authorization", "Bearer "+token)
	}
	return metadata.AppendToOutgoingContext(ctx, list...), nil
}
