package profiler

import "time"

// wallCost is what the snapshots of a process are expected to cost, in CPU time, by what they have cost.
//
// The first one finds images, tables and names, which no other has to: it counts little, so that a short recording has others.
// Each one after it counts in full, half of it for the next slot, a quarter for the one after that, and so on: slots are as long as all of them together
// want, whatever they cost, and one that was slow by chance leaves no long gap.
type wallCost struct {
	known bool
	next  time.Duration
}

func (c *wallCost) paid(took time.Duration) {
	if c.known {
		c.next = (c.next + took) / 2
	} else {
		c.known, c.next = true, took/wallBusy
	}
}
