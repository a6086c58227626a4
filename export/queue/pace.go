package queue

import "time"

// pace is how many profiles may be on their way at a time: one, as long as that is enough. A server that answers only when it has
// put a profile on its disk may take half a second for each, whoever else sends to it meanwhile.
type pace struct {
	most, now int
	changed   time.Duration
}

const (
	paceWait = 2 * time.Second // that a profile waits before more than now go at a time
	paceStep = time.Second     // between two such steps
)

// took is told of each profile that is taken, and for how long it has waited.
func (p *pace) took(waited, now time.Duration) {
	if waited > paceWait && p.now < p.most && now-p.changed >= paceStep {
		p.now, p.changed = min(2*p.now, p.most), now
	}
}

// idle: everything was sent.
func (p *pace) idle() { p.now = max(1, p.now/2) }

// failed: who has trouble is not to be helped by more.
func (p *pace) failed() { p.now = 1 }
