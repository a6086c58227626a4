package pyroscope

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"

	"github.com/pprofd/pprofd/export"
)

// reasonTooLarge is that of a profile that a server with smaller limits than the usual may take in parts.
const reasonTooLarge = "too_large"

// reasonLimited is that of one that came too fast, or too large for the server to ever say yes: it does not tell.
const reasonLimited = "rate_limited"

// maxAfter bounds what a server may have us wait: it takes no profile that is older.
const maxAfter = time.Hour

// tooLarge are the server's words for a profile that exceeds a limit of size, whatever the status (facts 1.4, 1.5: 400 and 422 of
// validation.max-profile-size-bytes and validation.max-profile-stacktrace-samples, 429 of Connect's limit of a message).
var tooLarge = regexp.MustCompile(`max_profile_size|max_profile_stacktrace_samples,|payload size exceeds|larger than configured max|http\.MaxBytesReader limit|body too large`)

// verdict is what an answer means. failed is what the client library says, nil if it is content.
func (a *answer) verdict(failed error) error {
	if failed == nil && a.status == 0 {
		failed = errors.New("nothing was sent")
	}
	if failed == nil && a.status == http.StatusOK && !a.foreign() {
		return nil
	}
	d := &export.DeliveryError{}
	switch a.status {
	case 0:
		d.Reason, d.Err = unanswered(failed), unwrapped(failed)
	case http.StatusOK:
		// It may have taken the profile: then it removes one of the two. Or somebody else answers.
		d.Reason, d.Err = "bad_answer", fmt.Errorf("the answer is not that of a Pyroscope server: %w", a.odd(failed))
	default:
		d.Retry, d.Reason = a.retry()
		d.After, d.Err = a.after(time.Now()), fmt.Errorf("%s: %s", a.text(), a.said())
	}
	return d
}

// retry is for answers other than 200.
func (a *answer) retry() (export.Retry, string) {
	reason := "http_" + strconv.Itoa(a.status)
	switch s := a.status; {
	case s == http.StatusRequestEntityTooLarge, tooLarge.Match(a.body):
		return export.Never, reasonTooLarge
	case s == http.StatusTooManyRequests:
		return export.Later, reasonLimited
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusProxyAuthRequired:
		return export.Later, "unauthorized" // until someone repairs the configuration
	case s < 400, s == http.StatusNotFound, s == http.StatusMethodNotAllowed:
		return export.Later, reason // likewise: it is the wrong address
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == 499: // it, or a proxy, gave up
		return export.Later, reason
	case s == http.StatusBadRequest, s == http.StatusUnprocessableEntity:
		return export.Never, "invalid"
	case s < 500, s == http.StatusNotImplemented:
		return export.Never, reason
	case s == http.StatusInternalServerError:
		return export.Once, reason
	}
	return export.Later, reason
}

// foreign says that somebody else answers 200: a proxy's page, the server of something else. The server's own answers are empty.
func (a *answer) foreign() bool {
	return strings.HasPrefix(strings.ToLower(a.header.Get("Content-Type")), "text/html")
}

func (a *answer) odd(failed error) error {
	if failed == nil {
		return errors.New("a page of text/html")
	}
	return unwrapped(failed)
}

// after is what Retry-After says: seconds, or a time.
func (a *answer) after(now time.Time) time.Duration {
	text := a.header.Get("Retry-After")
	if text == "" {
		return 0
	}
	d := time.Duration(0)
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(text); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxAfter)
}

func (a *answer) text() string {
	if to := a.header.Get("Location"); a.status < 400 && to != "" {
		return fmt.Sprintf("%d to %s, which is not followed (give that as the url)", a.status, printable(to))
	}
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprintf("%d (see tenant, basic_auth and bearer_token_file)", a.status)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return fmt.Sprintf("%d (see url and api)", a.status)
	}
	return strconv.Itoa(a.status)
}

// said are the server's own words.
func (a *answer) said() string {
	var e struct{ Code, Message string }
	if json.Unmarshal(a.body, &e) == nil && e.Message != "" {
		return printable(e.Code + ": " + e.Message)
	}
	if len(a.body) == 0 {
		return strings.ToLower(http.StatusText(a.status))
	}
	return strconv.Quote(printable(string(a.body)))
}

// printable makes s fit into a line of a log.
func printable(s string) string {
	const most = 500
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// unanswered names a failure without an answer.
func unanswered(err error) string {
	var (
		secret *secretError
		dns    *net.DNSError
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		op     *net.OpError
		netErr net.Error
	)
	switch {
	case errors.As(err, &secret):
		return "secret"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &dns):
		return "dns"
	case errors.As(err, &cert), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch),
		errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"): // an alert
		return "tls"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return "timeout"
	}
	return "unreachable"
}

// unwrapped leaves out what client libraries put in front, the address above all, which is said once.
func unwrapped(err error) error {
	var c *connect.Error
	if errors.As(err, &c) && c.Unwrap() != nil {
		err = c.Unwrap()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err
}
