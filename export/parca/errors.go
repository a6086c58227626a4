package parca

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pprofd/pprofd/export"
)

const (
	tooLarge = "too_large"
	maxWords = 1000 // bytes of a server's message that are kept
)

type verdict struct {
	retry  export.Retry
	reason string
}

// verdicts by gRPC code. Parca gives InvalidArgument and Unknown to bad profiles, the latter to failures of its own, too. What says
// that this is no such server, or that we may not, is no fault of the profile.
var verdicts = map[codes.Code]verdict{
	codes.Canceled:           {export.Later, "canceled"},
	codes.DeadlineExceeded:   {export.Later, "timeout"},
	codes.Unavailable:        {export.Later, "unavailable"},
	codes.Aborted:            {export.Later, "aborted"},
	codes.ResourceExhausted:  {export.Later, "resource_exhausted"},
	codes.Unauthenticated:    {export.Later, "unauthorized"},
	codes.PermissionDenied:   {export.Later, "unauthorized"},
	codes.Unimplemented:      {export.Later, "unimplemented"},
	codes.NotFound:           {export.Later, "not_found"},
	codes.Unknown:            {export.Once, "unknown"},
	codes.Internal:           {export.Once, "internal"},
	codes.DataLoss:           {export.Once, "data_loss"},
	codes.InvalidArgument:    {export.Never, "invalid"},
	codes.AlreadyExists:      {export.Never, "already_exists"},
	codes.FailedPrecondition: {export.Never, "failed_precondition"},
	codes.OutOfRange:         {export.Never, "out_of_range"},
}

// judged says what a failed request means for its profile.
func (x *Exporter) judged(err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	v, known := verdicts[s.Code()]
	if !known {
		v = verdict{export.Once, "grpc_" + strconv.Itoa(int(s.Code()))}
	}
	if s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "larger than max") { // google.golang.org/grpc: rpc_util.go
		v = verdict{export.Never, tooLarge}
	}
	e := &export.DeliveryError{Retry: v.retry, Reason: v.reason, Err: fmt.Errorf("%s: %s%s", s.Code(), words(s.Message()), x.hint(s))}
	if v.retry != export.Never {
		e.After = retryDelay(s)
	}
	return e
}

// words makes a server's message one line for a log.
func words(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxWords {
		return clip(s, maxWords) + "…"
	}
	return clip(s, maxWords)
}

// hint is what to do, where that is known.
func (x *Exporter) hint(s *status.Status) string {
	switch {
	case strings.Contains(s.Message(), "first record does not look like a TLS handshake"):
		return "; it speaks no TLS: write http:// before the address, or set insecure"
	case s.Code() == codes.Unavailable && strings.Contains(s.Message(), "error reading server preface"):
		return "; is that a gRPC server, and does it want TLS (https:// before the address)?"
	case s.Code() == codes.Unimplemented:
		return "; is that Parca?"
	case s.Code() == codes.Unauthenticated && x.o.BearerTokenFile == "":
		return "; it may want a token: bearer_token_file"
	}
	return ""
}

// retryDelay is how long the server wants to be left alone, if it says so.
func retryDelay(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}
