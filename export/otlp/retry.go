package otlp

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pprofd/pprofd/export"
)

// What is worth a retry is said by the protocol's specification (opentelemetry-proto, docs/specification.md, "Failures").

// codeOf is what a gRPC code means for a profile; codes that are missing are for ever.
var codeOf = map[codes.Code]verdict{
	codes.Canceled:         {export.Later, "canceled"},
	codes.DeadlineExceeded: {export.Later, "timeout"},
	codes.Aborted:          {export.Later, "aborted"},
	codes.OutOfRange:       {export.Later, "out_of_range"},
	codes.Unavailable:      {export.Later, "unavailable"},
	codes.DataLoss:         {export.Later, "data_loss"},
	// Not so by the specification. A token that is renewed late costs nothing then: the spool bounds how long this is tried.
	codes.PermissionDenied: {export.Later, "unauthorized"},
	codes.Unauthenticated:  {export.Later, "unauthorized"},

	codes.Unknown:            {export.Never, "unknown"},
	codes.InvalidArgument:    {export.Never, "invalid"},
	codes.NotFound:           {export.Never, "not_found"},
	codes.AlreadyExists:      {export.Never, "already_exists"},
	codes.ResourceExhausted:  {export.Never, "resource_exhausted"}, // but Later where the server says when
	codes.FailedPrecondition: {export.Never, "failed_precondition"},
	codes.Unimplemented:      {export.Never, "unimplemented"},
	codes.Internal:           {export.Never, "internal"},
}

type verdict struct {
	retry  export.Retry
	reason string
}

// ofGRPC says what a failed call means.
func ofGRPC(err error) error {
	if export.RetryOf(err) != nil {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return notReached(err)
	}
	v, known := codeOf[s.Code()]
	if !known {
		v = verdict{export.Never, "grpc_" + strconv.Itoa(int(s.Code()))}
	}
	after, said := retryDelay(s)
	switch {
	case s.Code() == codes.ResourceExhausted && said:
		v.retry = export.Later
	case s.Code() == codes.ResourceExhausted && ofRequest(s.Message()):
		v.reason = tooLarge
	case v.retry == export.Never:
		after = 0
	}
	return &export.DeliveryError{Retry: v.retry, After: after, Reason: v.reason, Err: fmt.Errorf("%s: %s", s.Code(), clip(s.Message()))}
}

const tooLarge = "too_large"

// ofRequest says whether a message of google.golang.org/grpc (rpc_util.go) is of a server to which the request is too large; it is the
// same as that of a client to which the answer is, but for the limit.
func ofRequest(message string) bool {
	return strings.Contains(message, "larger than max") && !strings.Contains(message, strconv.Itoa(grpcAnswer))
}

// retryDelay is how long the server wants to be left alone, if it says so.
func retryDelay(s *status.Status) (time.Duration, bool) {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration()), true
		}
	}
	return 0, false
}

// ofHTTP says what an answer means whose status is not 200.
func ofHTTP(r *http.Response, body []byte, now time.Time) error {
	e := &export.DeliveryError{Retry: export.Never, Reason: "http_" + strconv.Itoa(r.StatusCode)}
	switch r.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Retry, e.After = export.Later, retryAfter(r.Header.Get("Retry-After"), now)
	case http.StatusBadRequest:
		e.Reason = "invalid"
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Retry, e.Reason, e.After = export.Later, "unauthorized", retryAfter(r.Header.Get("Retry-After"), now)
	case http.StatusRequestEntityTooLarge:
		e.Reason = tooLarge
	}
	e.Err = fmt.Errorf("%s: %s", r.Status, words(r, body))
	return e
}

// words are what the server says of its failure.
func words(r *http.Response, body []byte) string {
	if to := r.Header.Get("Location"); to != "" {
		return fmt.Sprintf("it leads to %.200q, which is not followed: give the address that it leads to", to)
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == protobuf {
		var s statuspb.Status
		if err := proto.Unmarshal(body, &s); err == nil {
			return clip(s.GetMessage())
		}
	}
	return clip(string(body))
}

// retryAfter reads a header that has seconds or a date (RFC 9110, 10.2.3); 0 if it has neither.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// notReached is for requests that had no answer: the server may have got them or not.
func notReached(err error) error {
	if export.RetryOf(err) != nil {
		return err
	}
	reason := "unreachable"
	if errors.Is(err, context.DeadlineExceeded) {
		reason = "timeout"
	}
	return &export.DeliveryError{Retry: export.Later, Reason: reason, Err: err}
}

const maxWords = 1000 // bytes of a server's message that are kept

// clip makes a server's message one for a log.
func clip(s string) string {
	if len(s) > maxWords {
		s = s[:maxWords] + "…"
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), string(utf8.RuneError))
}

// warnings counts what a server says of profiles that it took.
type warnings struct {
	mu   sync.Mutex
	n    uint64
	last string
}

func (w *warnings) add(message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	w.last = message
}

// Warnings is how often the server took a profile and had something to say, and what it said last.
func (x *Exporter) Warnings() (n uint64, last string) {
	x.warnings.mu.Lock()
	defer x.warnings.mu.Unlock()
	return x.warnings.n, x.warnings.last
}
