package spool

import (
	"maps"
	"time"
)

// Count is of profiles, and of the sum of their Encoded.Total.
type Count struct{ Profiles, Samples int64 }

// Stats says what a Spool holds, and what it has done since it was opened.
type Stats struct {
	Batches  int
	Bytes    int64         // on disk, in whole blocks
	Memory   int64         // bytes of batches that could not be written
	Oldest   time.Duration // since the oldest batch was committed
	Written  Count         // committed
	Rejected int64         // profiles that could not be encoded
	Failures int64         // attempts to write a batch
	// Batches that went before all had them, for their age, the limit on size, a full disk (and memory), or since they were corrupt.
	RemovedAge, RemovedSize, RemovedFull, RemovedCorrupt int64
	BadProfiles                                          int64 // corrupt ones in batches that are not, once for each destination
	Leftovers                                            int64 // temporary files of killed programs that were removed
	BadAcks                                              int64 // records of acknowledgements that could not be read
	AckFailures                                          int64 // attempts to write acknowledgements
}

// Stats may be called at any time.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Batches, st.Bytes, st.Memory = len(s.batches), s.size, s.memory
	if len(s.batches) > 0 {
		_, now := s.opt.Clock()
		st.Oldest = now - s.batches[0].mono
	}
	return st
}

// CursorStats count since the destination is known, restarts included.
type CursorStats struct {
	Delivered Count
	Dropped   map[string]Count // by reason
	Pending   Count            // in the spool, taken ones included
	Bytes     int64            // of the pending ones, about
	Oldest    time.Duration    // since the oldest of them was committed
}

// Stats may be called at any time.
func (c *Cursor) Stats() CursorStats {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	_, now := c.s.opt.Clock()
	st := CursorStats{Delivered: c.totals[""], Dropped: maps.Clone(c.totals)}
	delete(st.Dropped, "")
	for _, b := range c.s.batches {
		if c.done(b) || !c.wants(b) {
			continue
		}
		n, samples := b.count, b.total
		if p := c.progress[b.first]; p != nil {
			n, samples = n-p.n, samples-p.samples
		}
		if st.Pending.Profiles == 0 {
			st.Oldest = now - b.mono
		}
		st.Pending.Profiles += int64(n)
		st.Pending.Samples += samples
		st.Bytes += b.size * int64(n) / int64(b.count)
	}
	return st
}
