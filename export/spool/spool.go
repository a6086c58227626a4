package spool

import (
	"errors"
	"time"

	"github.com/pprofd/pprofd/export"
)

// Options say where a Spool is and how much it keeps. What is 0 is the default.
type Options struct {
	// Dir is made if it is not there. It has to belong to this user, and nobody else may write to it.
	Dir string
	// MaxSize of all batches in bytes, as the disk counts, in blocks of 4 KiB: 512 MiB.
	MaxSize int64
	// MaxAge since a batch was written: 1 hour.
	MaxAge time.Duration
	// MaxMemory is for batches that could not be written, in bytes: 8 MiB.
	MaxMemory int64
	// Clock is for tests.
	Clock Clock
}

// Clock tells the time of day, which may be set, and the time that has passed since some moment.
type Clock func() (wall time.Time, mono time.Duration)

// SystemClock is what an owner uses but in tests.
func SystemClock() Clock {
	began := time.Now()
	return func() (time.Time, time.Duration) { now := time.Now(); return now.Round(0), now.Sub(began) }
}

// Spool is safe for concurrent use.
type Spool struct{}

// Destination is one that profiles are kept for.
type Destination struct {
	Name   string        // its identity, 1 byte at least; becomes a file name
	MaxAge time.Duration // of a profile, from its Start, that it takes; older ones are dropped. 0: any
}

var errNotYet = errors.New("not there yet")

// Open opens or makes the spool in o.Dir. Only one at a time may be open there. What a killed program left half done is repaired.
// Nothing is removed because it was delivered before Attach has said who the destinations are.
func Open(o Options) (*Spool, error) { return nil, errNotYet }

// Attach says which destinations there are from now on, and returns their cursors, in the same order. For those that were there
// before it is the same cursor. Others are no more: their cursors take nothing.
func (s *Spool) Attach(d ...Destination) ([]*Cursor, error) { return nil, errNotYet }

// Append encodes p and puts it into the batch that is being collected. The batch is committed where it becomes large
// (4 MiB), and by Commit. p is not kept; only p.Encoded is set.
func (s *Spool) Append(p *export.Profile) error { return errNotYet }

// Commit writes what was appended, and then offers it to all destinations. It also removes what is too old: its owner calls it
// about once a second, and at the end of a window. An error says that the batch is in memory only, or lost, which is counted.
func (s *Spool) Commit() error { return errNotYet }

// Stats may be called at any time.
func (s *Spool) Stats() Stats { return Stats{} }

// Close commits. Nobody may use the spool or its cursors any more.
func (s *Spool) Close() error { return nil }

// Count is of profiles, and of the sum of their Encoded.Total.
type Count struct{ Profiles, Samples int64 }

// Stats says what a Spool holds, and what it has done since it was opened.
type Stats struct {
	Batches  int
	Bytes    int64 // on disk, in whole blocks
	Memory   int64 // bytes of batches that could not be written
	Oldest   time.Duration
	Written  Count // committed
	Rejected int64 // profiles that could not be encoded
	Failures int64 // attempts to write a batch
	// Batches removed before all had them: by size, age, disk full (also from memory), corrupt or gone.
	RemovedSize, RemovedAge, RemovedFull, RemovedCorrupt int64
	Leftovers                                            int64 // temporary files of killed programs, removed
	BadAcks                                              int64 // records of acks that could not be read
	AckFailures                                          int64 // attempts to write acks
}
