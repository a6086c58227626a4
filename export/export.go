// Package export defines what a finished profile is and what takes it away.
package export

import (
	"context"
	"time"

	"github.com/google/pprof/profile"
)

// Profile is one finished profile: of one kind, one window, one target (or several merged).
type Profile struct {
	Kind       string // "cpu"
	PID        int    // 0 where several processes were merged
	StartTicks uint64 // of the process, as /proc/PID/stat has it; 0 where several were merged
	Comm       string
	Service    string  // service_name; "" in one-shot commands
	Labels     []Label // of the process, sorted by name, without service_name; nil in one-shot commands. Shared: read only.
	Start      time.Time
	Duration   time.Duration
	Data       *profile.Profile // nil where only Encoded is there: see Decode
	Encoded    *Encoded         // nil until Encode has made it
}

// Label says something about the process. Value may be anything that the process made it: valid UTF-8, at most 1 KiB.
type Label struct{ Name, Value string }

// Exporter takes profiles away. Export may be called again with the same profile where it failed (DeliveryError says more);
// it returns by the end of ctx, and does not change the profile.
type Exporter interface {
	Export(context.Context, *Profile) error
	Close() error
}
