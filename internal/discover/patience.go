package discover

import (
	"sync"
	"time"
)

// budget bounds how long is waited for processes that make whoever reads them wait: 5 % of the time, and a second.
type budget struct {
	mu   sync.Mutex
	left time.Duration
	at   time.Time
}

const (
	maxBudget   = time.Second
	budgetShare = 20
	leastWait   = time.Millisecond
)

// take is how long may be waited now, at most wait.
func (b *budget) take(wait time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.at.IsZero() {
		b.left = maxBudget
	} else {
		b.left = min(b.left+now.Sub(b.at)/budgetShare, maxBudget)
	}
	b.at = now
	return max(min(wait, b.left), leastWait)
}

// spend takes back what was waited in vain.
func (b *budget) spend(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = max(b.left-d, 0)
}

// jobs are the looks that are under way. No user but root has more than a share, so that none keeps others from being found.
type jobs struct {
	mu     sync.Mutex
	all    int
	byUser map[uint32]int
}

const (
	maxJobs       = 32
	maxJobsOfUser = 8
)

// begin is false where there are too many.
func (j *jobs) begin(uid uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.all >= maxJobs || uid != 0 && j.byUser[uid] >= maxJobsOfUser {
		return false
	}
	if j.byUser == nil {
		j.byUser = map[uint32]int{}
	}
	j.all++
	j.byUser[uid]++
	return true
}

func (j *jobs) end(uid uint32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all--
	if j.byUser[uid]--; j.byUser[uid] == 0 {
		delete(j.byUser, uid)
	}
}
