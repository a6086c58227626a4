package export

import (
	"errors"
	"time"
)

// Retry says whether to send a profile again that could not be delivered.
type Retry int

// Retries. An error that says nothing of it is one of Later: the destination was not reached.
const (
	Later Retry = iota // until it succeeds, or the profile is too old: busy, not reachable, not authorized (yet)
	Once               // one more time: the destination could not cope with it, which may be the profile's fault
	Never              // it cannot succeed
)

// DeliveryError is what Exporter.Export returns where it knows better than that a profile could not be delivered now.
type DeliveryError struct {
	Retry Retry
	After time.Duration // at the earliest; 0: as the sender likes
	// Reason is a short name for metrics: "too_large", "invalid", "unauthorized", "http_503".
	Reason string
	Err    error // with the destination's own words
}

func (e *DeliveryError) Error() string { return e.Err.Error() }
func (e *DeliveryError) Unwrap() error { return e.Err }

// RetryOf is what err says; nil for an error that says nothing.
func RetryOf(err error) *DeliveryError {
	var e *DeliveryError
	if errors.As(err, &e) {
		return e
	}
	return nil
}
