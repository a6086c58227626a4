package unwind

import (
	"math"
	"math/rand/v2"
)

// pcCache holds what is known of program counters of one image: open-addressed, at most half full. It is no Go map, for
// it is asked for every sample of every process, and would be a third of a sample's time.
type pcCache struct {
	slots []pcSlot // a power of two, or none
	n     int
}

type pcSlot struct {
	key  uint64 // offset in the image + 1; 0: empty
	info pcInfo
}

const minPCs = 64

// pcSeed spreads offsets; nobody who chooses where code lies knows it.
type pcSeed uint64

func newPCSeed() pcSeed { return pcSeed(rand.Uint64() | 1) }

// slot is where off is, or belongs.
func (c *pcCache) slot(seed pcSeed, off uint64) *pcSlot {
	mask := uint64(len(c.slots) - 1)
	h := (off + 1) * uint64(seed)
	for i := h ^ h>>32; ; i++ {
		if s := &c.slots[i&mask]; s.key == off+1 || s.key == 0 {
			return s
		}
	}
}

func (c *pcCache) get(seed pcSeed, off uint64) (pcInfo, bool) {
	if c.n == 0 {
		return pcInfo{}, false
	}
	s := c.slot(seed, off)
	return s.info, s.key != 0
}

// put enters an offset that is not there. The last of all has no key, and is looked up each time.
func (c *pcCache) put(seed pcSeed, off uint64, info pcInfo) {
	if off == math.MaxUint64 {
		return
	}
	if 2*(c.n+1) > len(c.slots) {
		old := c.slots
		c.slots = make([]pcSlot, max(2*len(old), minPCs))
		for i := range old {
			if old[i].key != 0 {
				*c.slot(seed, old[i].key-1) = old[i]
			}
		}
	}
	*c.slot(seed, off) = pcSlot{off + 1, info}
	c.n++
}
