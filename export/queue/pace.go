package queue

import "time"

// pace is how many profiles may be on their way at a time: one, as long as that is enough. A server that answers only when it has
// put a profile on its disk may take half a second for each, whoever else sends to it meanwhile.
type pace struct {
	most, now int
	changed   time.Duration
	takes     bool          // the last attempt that has come to an end succeeded,
	since     time.Duration // and so did all from here on
}

const (
	paceWait = 2 * time.Second // that a profile waits before more than now go at a time
	paceStep = time.Second     // between two such steps
)

// took is told of each profile that is taken, and for how long it has waited. What it waited for a server that was away does not count.
func (p *pace) took(waited, now time.Duration) {
	if p.takes && min(waited, now-p.since) > paceWait && p.now < p.most && now-p.changed >= paceStep {
		p.now, p.changed = min(2*p.now, p.most), now
	}
}

// idle: everything was sent.
func (p *pace) idle() { p.now = max(1, p.now/2) }

// succeeded: it takes profiles.
func (p *pace) succeeded(now time.Duration) {
	if !p.takes {
		p.takes, p.since = true, now
	}
}

// failed: who has trouble is not to be helped by more.
func (p *pace) failed() { p.now, p.takes = 1, false }
