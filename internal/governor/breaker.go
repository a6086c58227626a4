package governor

const (
	patience  = 3 // bad windows in a row, then a kind is off
	firstWait = 4 // windows
	maxWait   = 256

	wrongHigh  = 0.2 // of the events that went wrong
	wrongMin   = 3   // of them at least
	costFactor = 3   // times what the kind may cost
)

// breaker turns a kind off that misbehaves, tries it again, and waits twice as long each time.
type breaker struct {
	bad, good int  // windows in a row
	wait      int  // windows that it is still off
	backoff   int  // of the last time; 0: none that counts
	trial     bool // it has just been tried again: one bad window suffices
}

func (b *breaker) off() bool { return b.wait > 0 }

func (b *breaker) trip() {
	b.backoff = min(max(firstWait, 2*b.backoff), maxWait)
	b.wait, b.bad, b.good, b.trial = b.backoff, 0, 0, false
}

// next takes a window in which the kind was on; true: it is off now.
func (b *breaker) next(bad bool) bool {
	if bad {
		b.good = 0
		if b.bad++; b.bad < patience && !b.trial {
			return false
		}
		b.trip()
		return true
	}
	b.bad = 0
	if b.good++; b.good >= patience {
		b.trial = false
	}
	if b.good >= b.backoff {
		b.backoff = 0
	}
	return false
}

// wake ends a window of waiting; true: the kind is tried again.
func (b *breaker) wake() bool {
	b.wait--
	b.trial = b.wait == 0
	return b.trial
}

// breakers looks at all kinds.
func (g *Governor) breakers(d *Decision) {
	for _, k := range g.kinds {
		if k.breaker.off() {
			if k.breaker.wake() {
				k.rate, k.known, k.limit, k.on = k.Floor, false, 0, true
				d.reason("%s: tried again", k.Name)
			}
			continue
		}
		if !k.on {
			continue
		}
		why := k.misbehaves()
		if k.breaker.next(why != "") {
			d.reason("%s: off for %d windows: %s", k.Name, k.breaker.wait, why)
		}
	}
}

// misbehaves says why; "": it does not.
func (k *kind) misbehaves() string {
	if k.wrong > wrongHigh && k.wrongCount >= wrongMin {
		return percent(k.wrong) + " of its events went wrong"
	}
	if limit := max(k.own, k.allowed); k.cost > costFactor*limit && limit > 0 {
		return "it costs " + number(k.cost/limit) + " times its share"
	}
	return ""
}
