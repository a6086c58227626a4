package spool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/internal/private"
)

// ErrRejected is of a profile that cannot be kept, whatever the state of the spool.
var ErrRejected = errors.New("the profile is rejected")

var errTooLarge = errors.New("it is larger than all that the spool may hold")

// Append encodes p and puts it into the batch that is being collected, which is committed where it becomes large (4 MiB), and by
// Commit. p itself is not kept. An error is ErrRejected, and no destination will get p, or one of Commit.
func (s *Spool) Append(p *export.Profile) error {
	e, err := p.Encode()
	if err == nil && len(e.Gzip) > maxBody {
		err = fmt.Errorf("%s profile of process %d: %w", p.Kind, p.PID, errTooLarge)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stats.Rejected++
		return fmt.Errorf("spool %s: %w: %w", s.opt.Dir, ErrRejected, err)
	}
	q := *p
	q.Data = nil
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.pending = append(s.pending, &q)
	s.weight += weight(&q)
	full := len(s.pending) >= maxProfiles || s.weight >= min(maxBatch, s.opt.MaxSize/4)
	s.mu.Unlock()
	if full {
		return s.Commit()
	}
	return nil
}

// weight is what p takes in a batch at most.
func weight(p *export.Profile) int64 {
	n := 64 + len(p.Encoded.Gzip) + len(p.Kind) + len(p.Comm) + len(p.Service)
	for _, l := range p.Labels {
		n += 8 + len(l.Name) + len(l.Value)
	}
	return int64(n)
}

// Commit writes what was appended, and then offers it to all destinations. It also removes what is too old: its owner calls it
// about once a second, and at the end of a window. An error says that batches are in memory only, or lost, which is counted then.
func (s *Spool) Commit() error {
	s.committing.Lock()
	defer s.committing.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.expire()
	profiles := s.pending
	s.pending, s.weight = nil, 0
	s.mu.Unlock()
	err := s.rescue()
	for len(profiles) > 0 {
		n := min(len(profiles), maxProfiles)
		err = errors.Join(err, s.commit(profiles[:n]))
		profiles = profiles[n:]
	}
	if err != nil {
		return fmt.Errorf("spool %s: %w", s.opt.Dir, err)
	}
	return nil
}

// commit makes a batch.
func (s *Spool) commit(profiles []*export.Profile) error {
	s.mu.Lock()
	wall, mono := s.opt.Clock()
	b, head := newBatch(s.next, wall.UnixNano(), profiles)
	b.mono = mono
	s.next += uint64(b.count)
	s.fit(b.blocks())
	s.mu.Unlock()

	write := func(w io.Writer) error {
		_, err := w.Write(head)
		for i := 0; i < len(profiles) && err == nil; i++ {
			_, err = w.Write(profiles[i].Encoded.Gzip)
		}
		return err
	}
	err := errTooLarge
	if b.blocks() <= s.opt.MaxSize {
		err = s.write(b, write)
	}
	if private.IsFull(err) && s.makeRoom(2*b.blocks()) {
		err = s.write(b, write)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.stats.Failures++
		b.mem = memory(b, write)
	}
	s.add(b)
	if errors.Is(err, errTooLarge) {
		s.evict(b, SpoolSize)
	}
	s.fitMemory()
	for _, c := range s.cursors {
		c.wake()
	}
	return err
}

func memory(b *batch, write func(io.Writer) error) []byte {
	w := &sliceWriter{make([]byte, 0, b.size)}
	_ = write(w) // does not fail
	return w.b
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

func (s *Spool) add(b *batch) {
	s.batches = append(s.batches, b)
	s.size += b.disk()
	s.memory += int64(len(b.mem))
	s.stats.Written.Profiles += int64(b.count)
	s.stats.Written.Samples += b.total
}

// fit removes the oldest batches until there is room for size bytes within the limit.
func (s *Spool) fit(size int64) {
	if s.size+size <= s.opt.MaxSize {
		return
	}
	for _, b := range slices.Clone(s.batches) {
		if s.size+size <= s.opt.MaxSize {
			return
		}
		if b.mem == nil {
			s.evict(b, SpoolSize)
		}
	}
}

// makeRoom removes the oldest batches of a full disk, until size bytes are free: no more, for it may be somebody else who
// fills it. false: there is nothing to remove.
func (s *Spool) makeRoom(size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.size
	for _, b := range slices.Clone(s.batches) {
		if b.mem == nil && before-s.size < size {
			s.evict(b, DiskFull)
		}
	}
	return s.size < before
}

// fitMemory removes the oldest batches that are in memory, until they are within the limit.
func (s *Spool) fitMemory() {
	if s.memory <= s.opt.MaxMemory {
		return
	}
	for _, b := range slices.Clone(s.batches) {
		if b.mem != nil && s.memory > s.opt.MaxMemory {
			s.evict(b, DiskFull)
		}
	}
}

// rescue writes the batches that are in memory, if that is possible now.
func (s *Spool) rescue() error {
	s.mu.Lock()
	if s.memory == 0 {
		s.mu.Unlock()
		return nil
	}
	all := slices.Clone(s.batches)
	s.mu.Unlock()
	for _, b := range all {
		if b.mem == nil { // only who holds s.committing changes that
			continue
		}
		mem := b.mem
		err := s.write(b, func(w io.Writer) error { _, err := w.Write(mem); return err })
		s.mu.Lock()
		if err != nil {
			s.stats.Failures++
		} else {
			s.rescued(b)
		}
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%d bytes are in memory only: %w", len(mem), err)
		}
	}
	return nil
}

func (s *Spool) rescued(b *batch) {
	n := int64(len(b.mem))
	b.mem = nil
	if !slices.Contains(s.batches, b) { // delivered meanwhile
		_ = s.dir.Remove(b.name())
		return
	}
	s.memory -= n
	s.size += b.disk()
	s.fit(0)
}

// write makes the file of b: when it returns, all of it is on the disk under its name, or nothing.
func (s *Spool) write(b *batch, content func(io.Writer) error) error {
	f, temp, err := private.CreateTemp(s.dir.Root)
	if err != nil {
		return err
	}
	s.opt.step()
	w := bufio.NewWriterSize(f, 64<<10)
	if err = content(w); err == nil {
		err = w.Flush()
	}
	s.opt.step()
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	s.opt.step()
	if err != nil {
		_ = s.dir.Remove(temp)
		return err
	}
	if err := s.dir.Rename(temp, b.name()); err != nil {
		_ = s.dir.Remove(temp)
		return err
	}
	s.opt.step()
	if err := s.dir.Sync(); err != nil {
		_ = s.dir.Remove(b.name())
		return err
	}
	return nil
}

// Close commits, and counts what is in memory only as lost. Nobody may use the spool or its cursors any more.
func (s *Spool) Close() error {
	err := s.Commit()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for _, b := range slices.Clone(s.batches) {
		if b.mem != nil {
			s.evict(b, DiskFull)
		}
	}
	for _, c := range s.cursors {
		c.file.close()
	}
	return errors.Join(err, s.dir.Close())
}
