package bpf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// Replay reads what a Recorder wrote, as Probes.Read would. It needs no kernel and no rights.
type Replay struct {
	r    *bufio.Reader
	size [4]byte
	buf  []byte
}

// NewReplay replays what r holds.
func NewReplay(r io.Reader) *Replay { return &Replay{r: bufio.NewReader(r)} }

// Read reads the next record: ErrFlushed at the end, io.ErrUnexpectedEOF where a record was cut, ErrMalformed.
// It never waits, so the deadline is of no use here. It reuses the slices of rec.
func (p *Replay) Read(rec *Record, _ time.Time) error {
	if _, err := io.ReadFull(p.r, p.size[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return ErrFlushed
		}
		return fmt.Errorf("replay: %w", err)
	}
	n := binary.LittleEndian.Uint32(p.size[:])
	if n > maxReplayBytes {
		return fmt.Errorf("replay: %w: %d bytes", ErrMalformed, n)
	}
	if cap(p.buf) < int(n) {
		p.buf = make([]byte, n)
	}
	p.buf = p.buf[:n]
	if _, err := io.ReadFull(p.r, p.buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("replay: %w", err)
	}
	return rec.Decode(p.buf)
}
