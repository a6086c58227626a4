package profiler

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// haste has a thread run as soon as it wants to, where that is allowed (CAP_SYS_NICE): who looks when the CPUs have time for it sees too much
// of what happens then. It is for a moment: a thread that works for long in haste would keep others from working. Its methods are for
// that thread.
type haste struct {
	usual int // nice
	on    bool
}

// hasty is how long a snapshot may take, in CPU time, so that the next one is taken in haste.
const hasty = 5 * time.Millisecond

func newHaste() haste {
	// A timer that may be late is, until another one is due (prctl(2): PR_SET_TIMERSLACK, 50 µs): the moments would be those when programs wake up.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	const none = 20 // setpriority(2): the system call returns 20 - nice
	p, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		p = none
	}
	return haste{usual: none - p}
}

func (h *haste) set(on bool) {
	if on == h.on {
		return
	}
	nice := h.usual
	if on {
		const best = -20
		nice = best
	}
	if unix.Setpriority(unix.PRIO_PROCESS, 0, nice) == nil {
		h.on = on
	}
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
