package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// VictimHeaps copies the memory profiles of OOM victims in their own context, when their first thread dies: until then their
// memory is whole, however soon it is gone afterwards. For one goroutine.
type VictimHeaps struct {
	objs struct {
		Deliver *ebpf.Program `ebpf:"oom_deliver"`
		Watched *ebpf.Map     `ebpf:"watched"`
		Pieces  *ebpf.Map     `ebpf:"pieces"`
		Buffers *ebpf.Map     `ebpf:"buffers"`
	}
	link   link.Link
	reader *ringbuf.Reader
	record ringbuf.Record
	copies map[uint32]*HeapCopy // by PID
}

// HeapWatch says where a process keeps its memory profile: run-time addresses; Cycle may be 0.
type HeapWatch struct {
	StartTime            uint64 // clock ticks since boot
	Buckets, Cycle, Rate uint64
	Records              int // bytes of a bucket behind its stack
}

// WatchVictimHeaps attaches to the tracepoint signal/signal_deliver. The error wraps ErrNotSupported before Linux 5.17, and in
// a PID namespace of our own.
func WatchVictimHeaps() (*VictimHeaps, error) {
	if _, _, nested := ownPIDNamespace(); nested {
		return nil, fmt.Errorf("%w in a PID namespace", ErrNotSupported)
	}
	if err := features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnLoop); err != nil {
		return nil, explain("look for bpf_loop", err)
	}
	spec, err := loadOom()
	if err != nil {
		return nil, fmt.Errorf("read embedded BPF programs: %w", err)
	}
	h := &VictimHeaps{copies: make(map[uint32]*HeapCopy)}
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernelTypes(spec)}}
	if err := spec.LoadAndAssign(&h.objs, &opts); err != nil {
		return nil, explain("load the BPF program that copies the heaps of OOM victims", err)
	}
	if h.link, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "signal_deliver", Program: h.objs.Deliver}); err != nil {
		return nil, errors.Join(explain("attach to tracepoint signal/signal_deliver", err), h.Close())
	}
	if h.reader, err = ringbuf.NewReader(h.objs.Pieces); err != nil {
		return nil, errors.Join(fmt.Errorf("open BPF ring buffer: %w", err), h.Close())
	}
	return h, nil
}

// Watch makes pid one whose heap is copied if it becomes a victim.
func (h *VictimHeaps) Watch(pid uint32, w HeapWatch) error {
	v := oomHeapWatch{Start: w.StartTime, Buckets: w.Buckets, Cycle: w.Cycle, Rate: w.Rate, Records: uint32(w.Records)}
	if err := h.objs.Watched.Put(pid, &v); err != nil {
		return fmt.Errorf("watch the heap of process %d: %w", pid, err)
	}
	return nil
}

// Forget ends Watch.
func (h *VictimHeaps) Forget(pid uint32) error {
	for h.reader.SetDeadline(time.Now()); h.reader.ReadInto(&h.record) == nil; {
		if err := h.add(h.record.RawSample); err != nil {
			return err
		}
	}
	delete(h.copies, pid)
	if err := h.objs.Watched.Delete(pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget the heap of process %d: %w", pid, err)
	}
	return nil
}

// Read waits for the copy of pid's heap, at most until deadline: os.ErrDeadlineExceeded. The error wraps ErrNotWhole where not
// all could be copied.
func (h *VictimHeaps) Read(pid uint32, deadline time.Time) (*HeapCopy, error) {
	h.reader.SetDeadline(deadline)
	for {
		if c := h.copies[pid]; c != nil && c.ended {
			delete(h.copies, pid)
			return c, c.finish()
		}
		if err := h.reader.ReadInto(&h.record); err != nil {
			return nil, err
		}
		if err := h.add(h.record.RawSample); err != nil {
			return nil, err
		}
	}
}

// ErrNotWhole is returned where a part of a victim's memory was not there, or did not fit.
var ErrNotWhole = errors.New("the heap could not be copied as a whole")

// maxCopies bounds the processes whose copies wait to be read.
const maxCopies = 8

func (h *VictimHeaps) add(raw []byte) error {
	var p oomHeapPiece
	n, err := binary.Decode(raw, binary.LittleEndian, &p)
	if err != nil || uint64(p.Bytes) > uint64(len(raw)-n) {
		return fmt.Errorf("%w: piece of a heap of %d bytes", ErrMalformed, len(raw))
	}
	c := h.copies[p.Pid]
	if c == nil {
		if len(h.copies) >= maxCopies {
			clear(h.copies)
		}
		c = &HeapCopy{}
		h.copies[p.Pid] = c
	}
	if p.Bytes == 0 {
		c.ended, c.whole = true, p.Addr == 1
		return nil
	}
	c.pieces = append(c.pieces, piece{p.Addr, bytes.Clone(raw[n : n+int(p.Bytes)])})
	return nil
}

// Close frees everything.
func (h *VictimHeaps) Close() error {
	var errs []error
	if h.link != nil {
		errs = append(errs, h.link.Close())
	}
	if h.reader != nil {
		errs = append(errs, h.reader.Close())
	}
	return errors.Join(append(errs, h.objs.Deliver.Close(), h.objs.Watched.Close(), h.objs.Pieces.Close(), h.objs.Buffers.Close())...)
}

// HeapCopy is the memory of a process that holds its memory profile, by run-time address. What else is read of it is io.EOF.
type HeapCopy struct {
	pieces       []piece // by address once it has ended
	ended, whole bool
}

type piece struct {
	addr uint64
	data []byte
}

func (c *HeapCopy) finish() error {
	slices.SortFunc(c.pieces, comparePieces)
	if !c.whole {
		return fmt.Errorf("%w: %d pieces are there", ErrNotWhole, len(c.pieces))
	}
	return nil
}

func comparePieces(a, b piece) int {
	switch {
	case a.addr < b.addr:
		return -1
	case a.addr > b.addr:
		return 1
	}
	return 0
}

// ReadAt is io.ReaderAt.
func (c *HeapCopy) ReadAt(b []byte, off int64) (int, error) {
	addr := uint64(off)
	i, found := slices.BinarySearchFunc(c.pieces, piece{addr: addr}, comparePieces)
	if !found {
		i--
	}
	if i < 0 || addr-c.pieces[i].addr >= uint64(len(c.pieces[i].data)) {
		return 0, io.EOF
	}
	n := copy(b, c.pieces[i].data[addr-c.pieces[i].addr:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
