package profiler

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pprofd/pprofd/internal/goruntime"
)

// gaps are second looks, shortly after the first, at waits that were seen at a random moment: how many of them had ended meanwhile. That says how long such
// waits are, also where they are much shorter than the time between two snapshots. The zero value has none.
type gaps struct {
	waits           int64           // that were looked at
	ended, survived [gapBins]uint32 // by the time between the looks
	later           time.Duration   // the same of waits that the next snapshot has found, too, in all
}

const (
	gapBins  = 40
	gapShort = time.Microsecond // of the first
	perTwice = 2                // bins for times up to twice as long
)

func binOf(d time.Duration) int {
	if d <= gapShort {
		return 0
	}
	return min(int(perTwice*math.Log2(float64(d)/float64(gapShort))), gapBins-1)
}

// of bin i, its middle.
func gapOf(i int) float64 { return float64(gapShort) * math.Exp2((float64(i)+0.5)/perTwice) }

// look notes one.
func (g *gaps) look(d time.Duration, survived bool) {
	if i := binOf(d); survived {
		g.survived[i]++
	} else {
		g.ended[i]++
	}
}

// forget takes back what look has noted.
func (g *gaps) forget(d time.Duration, survived bool) {
	if i := binOf(d); survived {
		g.survived[i]--
	} else {
		g.ended[i]--
	}
}

// add adds others.
func (g *gaps) add(o *gaps) {
	g.waits, g.later = g.waits+o.waits, g.later+o.later
	for i := range g.ended {
		g.ended[i] += o.ended[i]
		g.survived[i] += o.survived[i]
	}
}

// mean is over, of the waits that were in one snapshot only.
func (g *gaps) mean() time.Duration { return g.over(0) }

// over estimates how long waits are, of which more was seen to go on for so long, each as likely to be met as any other: the harmonic mean of those that were met, which long ones are more
// often. 0: it cannot be told, for too few had ended, or none was looked at.
//
// It is the most likely one where the rest of a wait has an exponential distribution, which holds for any where looks are close together: of waits of the
// length d one ends within a short time t with the probability t/d. A millisecond of waiting is assumed that nobody saw, so that a single wait that
// ends at once does not count for thousands.
func (g *gaps) over(more time.Duration) time.Duration {
	exposed, ended := float64(time.Millisecond+more), uint32(0)
	for i := range g.ended {
		ended += g.ended[i]
		exposed += float64(g.survived[i]) * gapOf(i)
	}
	if ended == 0 {
		return 0
	}
	short, long := math.Log(float64(time.Nanosecond)), math.Log(float64(24*time.Hour))
	for long-short > 1e-6 {
		if middle := (short + long) / 2; g.lived(math.Exp(middle)) < exposed {
			short = middle
		} else {
			long = middle
		}
	}
	return time.Duration(math.Exp(short))
}

// lived is for how long those that have ended are expected to have gone on, weighted with how much they tell, if waits take mean; it grows
// with it.
func (g *gaps) lived(mean float64) (sum float64) {
	for i, n := range g.ended {
		if n > 0 {
			x := gapOf(i) / mean
			sum += float64(n) * gapOf(i) / math.Expm1(x)
		}
	}
	return sum
}

// lastRead is when memory was last read.
func (p *wallProgram) lastRead() (at time.Time) {
	if m, ok := p.g.mem.(watched); ok {
		at = m.p.last
	}
	return at
}

// glance is what came of a wait that was seen: whether it had ended when the goroutine's stack had been read, and, if not, some milliseconds later.
type glance struct {
	at    time.Time // of the last look
	gaps  [2]time.Duration
	alive [2]bool // it went on, which is in gaps
}

// note notes the nth look after the first.
func (s *stopped) note(n int, at time.Time, survived bool) {
	l := s.looked
	l.gaps[n], l.alive[n], l.at = at.Sub(l.at), survived, at
	s.group.once.look(l.gaps[n], survived)
}

// glance notes whether a goroutine that was seen to wait still did when its stack had been read.
func (p *wallProgram) glance(s *stopped, survived bool) {
	if s.looked == nil || !s.sure || s.state != goruntime.Waiting || !contends(KindBlock, s.reason) {
		return
	}
	if s.group.once == nil {
		if p.groups.twice >= maxTwice {
			return
		}
		p.groups.twice++
		s.group.once = &gaps{}
	}
	s.group.once.waits++
	s.note(0, p.lastRead(), survived)
}

// lookAgain looks at those that still did.
func (p *wallProgram) lookAgain(ctx context.Context) error {
	_, err := p.g.Read(ctx, GoroutineQuery{Want: func(raw *goruntime.Goroutine) bool {
		if s, ok := p.seen[raw.Addr]; ok && s.first == p.index && s.looked != nil && s.looked.alive[0] {
			now := p.stopped(raw)
			s.note(1, p.lastRead(), s.same(&now))
		}
		return false
	}}, nil)
	return err
}

// repeated says that the next snapshot has found a wait, too.
func (s *stopped) repeated() {
	if s.looked == nil || s.first != s.last || !s.looked.alive[0] {
		return
	}
	s.group.once.waits--
	for i, d := range s.looked.gaps {
		if d > 0 {
			s.group.once.forget(d, s.looked.alive[i])
			s.group.once.later += d
		}
	}
}

// maxTwice bounds the groups that have gaps: 5 MiB.
const maxTwice = 1 << 14

// contentions estimates how many waits there were in g, of goroutines that did something else, too: idle is the time of those that did not, in all
// snapshots. Those that were in several snapshots are all there are of their length; each of the others stands for as many as
// are as short, most of which no snapshot has met.
func (g *wallGroup) contentions(idle time.Duration, snapshots int64) int64 {
	seen := g.stops - g.whole
	looks := g.count - g.whole*snapshots
	if g.once == nil || looks <= 0 {
		return seen
	}
	mean, once := g.once.mean(), g.once.waits
	if mean == 0 {
		return seen
	}
	whole := float64(g.weight - idle)
	spent := whole * float64(once) / float64(looks)
	n := seen - once + max(once, int64(math.Round(spent/float64(mean))))
	// The few that happen to end at once while most go on tell little of how long those are that were in one snapshot.
	return min(n, max(seen, int64(math.Round(whole/float64(g.once.over(g.once.later))))))
}

// When waits are looked at again, after a snapshot.
const (
	againSoon = time.Millisecond / 2
	againLate = 8 * time.Millisecond
)

// againAfter is a time between them, each order of magnitude as likely as any other: x is a random number up to 1.
func againAfter(x float64) time.Duration {
	return time.Duration(float64(againSoon) * math.Pow(float64(againLate)/float64(againSoon), x))
}

// again looks at waits again, some milliseconds after a snapshot.
func (t *wallTarget) again(ctx context.Context) error {
	if !sleepUntil(ctx, time.Now().Add(againAfter(rand.Float64()))) {
		return nil
	}
	return t.lookAgain(context.WithoutCancel(ctx))
}

// maxAgain is of how many processes' waits there is another look later: nothing else is done until then.
const maxAgain = 4

// estimated is of how many processes contention is estimated.
func (w *Wall) estimated() (n int) {
	for _, t := range w.targets {
		if t.ended.IsZero() && t.estimates() {
			n++
		}
	}
	return n
}
