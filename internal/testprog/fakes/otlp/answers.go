package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// garbage is a message whose first field is bytes that are no message.
func garbage(n int) []byte {
	b, _ := proto.Marshal(wrapperspb.Bytes(bytes.Repeat([]byte{0xff}, n)))
	return b
}

const huge = 5 << 20

// partial is a context's value: what the handler has to say besides.
type partial struct{}

// intercept is a grpc.UnaryServerInterceptor.
func (s *Server) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	f := s.next()
	md, _ := metadata.FromIncomingContext(ctx)
	if err := s.checkHeaders(func(name string) []string { return md.Get(name) }); err != nil {
		return nil, status.Error(codes.Unauthenticated, s.refuse(err).Error())
	}
	switch {
	case f.Hang:
		return nil, s.wait(ctx)
	case f.Code != codes.OK:
		return nil, coded(f)
	}
	answer, err := handle(context.WithValue(ctx, partial{}, f), req)
	switch {
	case err != nil:
	case f.Lost:
		s.wires.reset()
	case f.Garbage:
		return wrapperspb.Bytes(bytes.Repeat([]byte{0xff}, 10)), nil
	case f.Huge:
		return wrapperspb.Bytes(bytes.Repeat([]byte{0xff}, huge)), nil
	}
	return answer, err
}

func coded(f Fault) error {
	st := status.New(f.Code, f.Message)
	if f.RetryDelay != 0 {
		with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(f.RetryDelay)})
		if err != nil {
			return err
		}
		st = with
	}
	return st.Err()
}

func (s *Server) checkHeaders(get func(string) []string) error {
	for name, want := range s.o.Headers {
		if got := get(name); len(got) != 1 || got[0] != want {
			return fmt.Errorf("header %s is %q", name, got)
		}
	}
	return nil
}

type profileServer struct {
	pprofileotlp.UnimplementedGRPCServer
	s *Server
}

// Export is called by gRPC.
func (p *profileServer) Export(ctx context.Context, r pprofileotlp.ExportRequest) (pprofileotlp.ExportResponse, error) {
	f, _ := ctx.Value(partial{}).(Fault)
	md, _ := metadata.FromIncomingContext(ctx)
	if err := checkVersion(md.Get(pprofileotlp.DevelopmentVersionHeader)); err != nil {
		return pprofileotlp.NewExportResponse(), status.Error(codes.InvalidArgument, p.s.refuse(err).Error())
	}
	if err := p.s.takeProfiles(r.Profiles(), f); err != nil {
		return pprofileotlp.NewExportResponse(), status.Error(codes.InvalidArgument, p.s.refuse(err).Error())
	}
	return profileAnswer(f), nil
}

func profileAnswer(f Fault) pprofileotlp.ExportResponse {
	r := pprofileotlp.NewExportResponse()
	r.PartialSuccess().SetRejectedProfiles(f.Rejected)
	r.PartialSuccess().SetErrorMessage(f.Message)
	return r
}

func checkVersion(values []string) error {
	if len(values) == 0 {
		return fmt.Errorf("%s is missing", pprofileotlp.DevelopmentVersionHeader)
	}
	return pprofileotlp.ValidateDevelopmentVersion(values)
}

type metricServer struct {
	pmetricotlp.UnimplementedGRPCServer
	s *Server
}

// Export is called by gRPC.
func (m *metricServer) Export(ctx context.Context, r pmetricotlp.ExportRequest) (pmetricotlp.ExportResponse, error) {
	f, _ := ctx.Value(partial{}).(Fault)
	if err := m.s.takeMetrics(r.Metrics(), f); err != nil {
		return pmetricotlp.NewExportResponse(), status.Error(codes.InvalidArgument, m.s.refuse(err).Error())
	}
	return metricAnswer(f), nil
}

func metricAnswer(f Fault) pmetricotlp.ExportResponse {
	r := pmetricotlp.NewExportResponse()
	r.PartialSuccess().SetRejectedDataPoints(f.Rejected)
	r.PartialSuccess().SetErrorMessage(f.Message)
	return r
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1development/profiles", s.overHTTP(func(r *http.Request, body []byte, f Fault) ([]byte, error) {
		if err := checkVersion(r.Header.Values(pprofileotlp.DevelopmentVersionHeader)); err != nil {
			return nil, err
		}
		req := pprofileotlp.NewExportRequest()
		if err := req.UnmarshalProto(body); err != nil {
			return nil, err
		}
		if err := s.takeProfiles(req.Profiles(), f); err != nil {
			return nil, err
		}
		return profileAnswer(f).MarshalProto()
	}))
	mux.HandleFunc("POST /v1/metrics", s.overHTTP(func(_ *http.Request, body []byte, f Fault) ([]byte, error) {
		req := pmetricotlp.NewExportRequest()
		if err := req.UnmarshalProto(body); err != nil {
			return nil, err
		}
		if err := s.takeMetrics(req.Metrics(), f); err != nil {
			return nil, err
		}
		return metricAnswer(f).MarshalProto()
	}))
	return mux
}

const protobuf = "application/x-protobuf"

// overHTTP answers requests by take.
func (s *Server) overHTTP(take func(r *http.Request, body []byte, f Fault) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, code, err := s.body(r)
		if errors.Is(err, net.ErrClosed) { // reset, and counted
			panic(http.ErrAbortHandler)
		}
		f := s.next()
		if err == nil {
			code = http.StatusUnauthorized
			err = s.checkHeaders(r.Header.Values)
		}
		if err != nil {
			fail(w, Fault{Status: code, Message: s.refuse(err).Error()})
			return
		}
		switch {
		case f.Hang:
			_ = s.wait(r.Context())
			panic(http.ErrAbortHandler)
		case f.Status != 0:
			fail(w, f)
			return
		case f.Page:
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>Welcome</html>"))
			return
		}
		answer, err := take(r, body, f)
		switch {
		case err != nil:
			fail(w, Fault{Status: http.StatusBadRequest, Message: s.refuse(err).Error()})
			return
		case f.Lost:
			s.wires.reset()
			panic(http.ErrAbortHandler)
		case f.Garbage:
			answer = garbage(10)
		case f.Huge:
			answer = garbage(huge)
		}
		w.Header().Set("Content-Type", protobuf)
		_, _ = w.Write(answer)
	}
}

// body reads a request; code is the answer's status where it cannot be read.
func (s *Server) body(r *http.Request) (body []byte, code int, err error) {
	if t := r.Header.Get("Content-Type"); t != protobuf {
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("content type %q", t)
	}
	from := io.Reader(r.Body)
	switch e := r.Header.Get("Content-Encoding"); e {
	case "":
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, http.StatusBadRequest, err
		}
		from = z
		s.compressed()
	default:
		return nil, http.StatusBadRequest, fmt.Errorf("content encoding %q", e)
	}
	body, err = io.ReadAll(io.LimitReader(from, int64(s.o.MaxRequest)+1))
	switch {
	case err != nil:
		return nil, http.StatusBadRequest, err
	case len(body) > s.o.MaxRequest:
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("a request of more than %d bytes", s.o.MaxRequest)
	}
	return body, 0, nil
}

func fail(w http.ResponseWriter, f Fault) {
	body, _ := proto.Marshal(&statuspb.Status{Message: f.Message})
	w.Header().Set("Content-Type", protobuf)
	if f.Plain {
		body = []byte(f.Message)
		w.Header().Set("Content-Type", "text/plain")
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	if f.Location != "" {
		w.Header().Set("Location", f.Location)
	}
	w.WriteHeader(f.Status)
	_, _ = w.Write(body)
}
