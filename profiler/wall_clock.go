package profiler

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// hurry has the calling thread run as soon as it wants to, where that is allowed (CAP_SYS_NICE). Who looks when the CPUs have time for it sees too
// much of what happens then.
func hurry() {
	const best = -20
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, best)
}

// unnoticed is how long the end of a context may go unnoticed.
const unnoticed = 50 * time.Millisecond

// sleepUntil waits by the calling thread itself: a timer of the Go runtime would have to be seen by another thread first. It returns false where
// ctx ended before.
func sleepUntil(ctx context.Context, at time.Time) bool {
	for ctx.Err() == nil {
		left := time.Until(at)
		if left <= 0 {
			return true
		}
		ts := unix.NsecToTimespec(int64(min(left, unnoticed)))
		_ = unix.Nanosleep(&ts, nil) // a signal ends it early
	}
	return false
}
