package bpf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// maxReplayBytes bounds one record of a replay: more than the programs can write.
const maxReplayBytes = 1 << 16

// Recorder writes records for Replay: for each its length in bytes, 4 bytes little endian, then what the programs wrote.
type Recorder struct {
	w   io.Writer
	buf []byte
}

// NewRecorder records to w, which gets one Write for each record.
func NewRecorder(w io.Writer) *Recorder { return &Recorder{w: w} }

// Write records what was last read or decoded into r.
func (c *Recorder) Write(r *Record) error {
	c.buf = binary.LittleEndian.AppendUint32(c.buf[:0], uint32(8*len(r.words)))
	for _, w := range r.words {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, w)
	}
	if _, err := c.w.Write(c.buf); err != nil {
		return fmt.Errorf("record sample: %w", err)
	}
	return nil
}

// SetProcess makes the record that of another process: what many processes of one program do can then be replayed from
// what one did. It must have been read or decoded before.
func (r *Record) SetProcess(pid uint32, startTime uint64) {
	r.PID, r.StartTime = pid, startTime
	r.words[0] = r.words[0]&math.MaxUint32 | uint64(pid)<<32
	r.words[1] = startTime
}

// Replay reads what a Recorder wrote, and stands in for Probes. It needs no kernel and no rights, and nothing but Read
// does anything. All belongs to one goroutine.
type Replay struct {
	r       *bufio.Reader
	samples uint64
}

// replayLength is the size of what stands before each record.
const replayLength = 4

// NewReplay replays what r holds.
func NewReplay(r io.Reader) *Replay {
	return &Replay{r: bufio.NewReaderSize(r, 2*maxReplayBytes)}
}

// Read reads the next record: ErrFlushed at the end, io.ErrUnexpectedEOF where a record was cut, ErrMalformed.
// It never waits, so the deadline is of no use here. It reuses the slices of rec.
func (p *Replay) Read(rec *Record, _ time.Time) error {
	size, err := p.r.Peek(replayLength)
	if errors.Is(err, io.EOF) && len(size) == 0 {
		return ErrFlushed
	}
	if err != nil {
		return p.cut(err)
	}
	n := binary.LittleEndian.Uint32(size)
	if n > maxReplayBytes {
		return fmt.Errorf("replay: %w: %d bytes", ErrMalformed, n)
	}
	b, err := p.r.Peek(replayLength + int(n))
	if err != nil {
		return p.cut(err)
	}
	if _, err := p.r.Discard(len(b)); err != nil {
		return p.cut(err)
	}
	if err := rec.Decode(b[replayLength:]); err != nil {
		return err
	}
	if rec.Type == TypeSample {
		p.samples++
	}
	rec.More = p.ready()
	return nil
}

// ready reports whether the next record has been read from the file as a whole.
func (p *Replay) ready() bool {
	if p.r.Buffered() < replayLength {
		return false
	}
	size, err := p.r.Peek(replayLength)
	return err == nil && p.r.Buffered()-replayLength >= int(binary.LittleEndian.Uint32(size))
}

func (*Replay) cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("replay: %w", err)
}

// EventReplay is what samples of a Replay are said to come from.
const EventReplay Event = "replay"

// Event is EventReplay.
func (*Replay) Event() Event { return EventReplay }

// Stats has the samples that were read; a replay loses none.
func (p *Replay) Stats() (Stats, error) { return Stats{Recorded: p.samples}, nil }

// Losses are none.
func (*Replay) Losses() (map[uint32]Loss, error) { return map[uint32]Loss{}, nil }

// Throttled is nothing.
func (*Replay) Throttled() (map[uint32]Loss, error) { return map[uint32]Loss{}, nil }

// SetTarget does nothing: the replay has what it has.
func (*Replay) SetTarget(uint32, *Target) error { return nil }

// UpdateTarget does nothing.
func (*Replay) UpdateTarget(uint32, *Target) error { return nil }

// RemoveTarget does nothing.
func (*Replay) RemoveTarget(uint32) (was bool, err error) { return true, nil }

// ForgetLosses does nothing.
func (*Replay) ForgetLosses(uint32) error { return nil }

// Start does nothing.
func (*Replay) Start() error { return nil }

// Stop does nothing.
func (*Replay) Stop() error { return nil }

// Flush does nothing: a replay ends by itself.
func (*Replay) Flush() error { return nil }

// Close does nothing; what is replayed is the caller's.
func (*Replay) Close() error { return nil }
