package spool

import (
	"time"

	"github.com/pprofd/pprofd/export"
)

// Cursor is what one destination has got, and what it has not. It is safe for concurrent use.
type Cursor struct{}

// Record is a profile that was taken.
type Record struct {
	Seq     uint64 // never used twice
	Profile *export.Profile
	Age     time.Duration // since Start, by the clock that does not step
}

// Lane is which part of the spool to take from.
type Lane struct {
	Than   time.Duration         // age of a batch, since it was committed
	Older  bool                  // batches older Than that; else younger ones
	Except func(seq uint64) bool // may be nil
}

// Take returns the oldest profile of the lane that is not delivered, dropped or taken; nil, if there is none. It belongs to the
// caller until he calls Done, Drop or Release. What is too old or cannot be read is dropped on the way. An error is one of the system.
func (c *Cursor) Take(l Lane) (*Record, error) { return nil, errNotYet }

// Done: the destination has it. An error says that a restart will not know.
func (c *Cursor) Done(r *Record) error { return errNotYet }

// Drop: it will not be delivered. reason is a short name ("http_400"), of which there are 32 at most.
func (c *Cursor) Drop(r *Record, reason string) error { return errNotYet }

// Release: it was not delivered, and can be taken again.
func (c *Cursor) Release(r *Record) {}

// Ready gets a value when something was committed since the last one.
func (c *Cursor) Ready() <-chan struct{} { return nil }

// Stats may be called at any time.
func (c *Cursor) Stats() CursorStats { return CursorStats{} }

// Reasons of the spool's own, among those of CursorStats.Dropped.
const (
	TooOld       = "too_old"      // than the destination takes, or the spool keeps
	SpoolSize    = "spool_size"   // the spool's limit
	DiskFull     = "disk_full"    // and memory is full, too
	Corrupt      = "corrupt"      // on disk
	Unconfigured = "unconfigured" // the destination was none any more when all others had it
)

// CursorStats count since the destination is known, restarts included.
type CursorStats struct {
	Delivered Count
	Dropped   map[string]Count // by reason
	Pending   Count            // in the spool, taken ones included
	Bytes     int64            // of the pending ones, about
	Oldest    time.Duration    // since the oldest of them was committed
}
