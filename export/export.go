// Package export defines what a finished profile is and what takes it away.
package export

import (
	"context"
	"time"

	"github.com/google/pprof/profile"
)

// Profile is one finished profile: of one kind, one window, one target (or several merged).
type Profile struct {
	Kind     string // "cpu"
	PID      int    // 0 where several processes were merged
	Comm     string
	Start    time.Time
	Duration time.Duration
	Data     *profile.Profile
}

// Exporter takes profiles away.
type Exporter interface {
	Export(context.Context, *Profile) error
	Close() error
}
