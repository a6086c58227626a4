package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pprofd/pprofd/export"
)

// method is of opentelemetry-proto's collector/profiles/v1development/profiles_service.proto.
const method = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"

// Connections, of both protocols.
const (
	maxAnswer  = 4 << 20          // bytes; the protocol recommends it
	grpcAnswer = maxAnswer + 1    // is nobody else's limit: see ofRequest
	maxPause   = 5 * time.Second  // between two attempts to connect: the queue waits by itself
	pingAfter  = 15 * time.Second // without a sign of life during a request
	pingWithin = 10 * time.Second // is the answer to a ping there, or the connection is dead
)

type grpcTransport struct{ conn *grpc.ClientConn }

func newGRPC(o *Options) (*grpcTransport, error) {
	conn, err := o.dial()
	if err != nil {
		return nil, err
	}
	return &grpcTransport{conn}, nil
}

// dial makes a connection that is established when it is needed, and that sends headers and token with each request.
func (o *Options) dial() (*grpc.ClientConn, error) {
	s, err := o.server()
	if err != nil {
		return nil, err
	}
	if s.path != "" {
		return nil, fmt.Errorf("otlp: endpoint %q: gRPC has no path; is it for protocol http?", o.Endpoint)
	}
	security := insecure.NewCredentials()
	if !s.plain {
		c, err := o.tls()
		if err != nil {
			return nil, err
		}
		security = credentials.NewTLS(c)
	}
	pause := backoff.DefaultConfig
	pause.MaxDelay = maxPause
	return grpc.NewClient(s.host,
		grpc.WithTransportCredentials(security),
		grpc.WithUserAgent(o.agent()),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: 10 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingWithin}),
		grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name), grpc.MaxCallRecvMsgSize(grpcAnswer)),
		grpc.WithPerRPCCredentials(perCall{o}),
	)
}

func (o *Options) agent() string { return "pprofd/" + o.Version }

func (o *Options) tls() (*tls.Config, error) {
	c, err := o.TLS.Config()
	if err != nil {
		return nil, fmt.Errorf("otlp: endpoint %q: %w", o.Endpoint, err)
	}
	return c, nil
}

// perCall adds headers and token to each call.
type perCall struct{ o *Options }

// RequireTransportSecurity is false: whether there is TLS is said by Options.
func (perCall) RequireTransportSecurity() bool { return false }

// GetRequestMetadata is called by gRPC. Its errors have a code that is worth a retry: a file may be about to change.
func (c perCall) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	h, err := c.o.headers()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	md := make(map[string]string, len(h))
	for k, v := range h {
		md[strings.ToLower(k)] = v
	}
	return md, nil
}

// headers are those that each request has.
func (o *Options) headers() (map[string]string, error) {
	h := make(map[string]string, len(o.Headers)+1)
	for k, v := range o.Headers {
		h[k] = v
	}
	if o.BearerTokenFile != "" {
		token, err := export.ReadSecret(o.BearerTokenFile)
		if err != nil {
			return nil, &export.DeliveryError{Reason: "secret", Err: fmt.Errorf("bearer token: %w", err)}
		}
		h["authorization"] = "Bearer " + token
	}
	return h, nil
}

func (t *grpcTransport) close() error { return t.conn.Close() }

func (t *grpcTransport) send(ctx context.Context, request []byte) (answer, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, pprofileotlp.DevelopmentVersionHeader, pprofileotlp.DevelopmentVersion)
	var reply []byte
	if err := t.conn.Invoke(ctx, method, request, &reply, grpc.ForceCodecV2(bytesCodec{})); err != nil {
		return answer{}, ofGRPC(err)
	}
	return readAnswer(reply, (pprofileotlp.ExportResponse).UnmarshalProto)
}

// readAnswer reads an answer of a server that says that all is well.
func readAnswer(b []byte, read func(pprofileotlp.ExportResponse, []byte) error) (answer, error) {
	r := pprofileotlp.NewExportResponse()
	if err := read(r, b); err != nil {
		return answer{}, &export.DeliveryError{Retry: export.Once, Reason: "garbage", Err: fmt.Errorf("the server's answer cannot be read: %w", err)}
	}
	return answer{rejected: r.PartialSuccess().RejectedProfiles(), message: clip(r.PartialSuccess().ErrorMessage())}, nil
}

// bytesCodec carries messages that are encoded already: a request's size must be known before it is sent.
type bytesCodec struct{}

var errNoBytes = errors.New("otlp: not encoded")

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errNoBytes
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errNoBytes
	}
	*b = data.Materialize()
	return nil
}
