package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// feed is what all objects of events.h have: targets, their exec and exit, and the ring buffer with its counters and losses.
type feed struct {
	maps

	wire   func(*Target) any // the value of targets
	links  []link.Link
	reader *ringbuf.Reader // never waits
	record ringbuf.Record
	wakeup *os.File // is readable when the reader should look

	steering sync.Mutex    // all below
	settings cpuSettings   // as control has them
	longest  time.Duration // of the CPUs' periods
}

// maps of events.h.
type maps struct {
	targets, losses, throttled, counters, control, samples, strangers *ebpf.Map
}

// follow attaches the programs that tell of exec and exit, and opens the ring buffer.
func (p *feed) follow(exec, exit *ebpf.Program) error {
	for name, prog := range map[string]*ebpf.Program{"sched_process_exec": exec, "sched_process_exit": exit} {
		if err := p.attach(name, prog); err != nil {
			return err
		}
	}
	var err error
	if p.reader, err = ringbuf.NewReader(p.samples); err == nil {
		p.reader.SetDeadline(time.Unix(1, 0))
		p.wakeup, err = pollable(p.samples.FD())
	}
	if err != nil {
		return fmt.Errorf("open BPF ring buffer: %w", err)
	}
	return nil
}

// pollable is a file that the runtime's poller waits for. A thread that waits in a system call of its own, as the reader
// of ring buffers would, has the runtime look after it: each time 60 wake-ups within 30 ms (Go 1.26, runtime.sysmon).
func pollable(fd int) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(own, true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(own))
	}
	f := os.NewFile(uintptr(own), "BPF ring buffer")
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (p *feed) attach(tracepoint string, prog *ebpf.Program) error {
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: prog})
	if err != nil {
		return explain("attach to tracepoint "+tracepoint, err)
	}
	p.links = append(p.links, l)
	return nil
}

func (p *feed) close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	if p.wakeup != nil {
		if err := p.wakeup.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	p.links = nil
	return errors.Join(errs...)
}

// Flush wakes Read up with what the ring buffer holds; Read then returns ErrFlushed once it is empty.
func (p *feed) Flush() error {
	return errors.Join(p.reader.Flush(), p.wakeup.SetReadDeadline(time.Unix(1, 0)))
}

// Read waits for the next record, at most until deadline (zero: for ever): os.ErrDeadlineExceeded, ErrFlushed, os.ErrClosed.
// It reuses the slices of rec.
func (p *feed) Read(rec *Record, deadline time.Time) error {
	err := p.reader.ReadInto(&p.record)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = p.wait(deadline)
	}
	switch {
	case errors.Is(err, os.ErrClosed):
		return os.ErrClosed
	case err != nil:
		return err
	}
	rec.More = p.record.Remaining > 0 // the programs discard none
	return rec.Decode(p.record.RawSample)
}

// wait reads the next record into p.record once there is one.
func (p *feed) wait(deadline time.Time) error {
	poll, err := p.wakeup.SyscallConn()
	if err == nil {
		err = p.wakeup.SetReadDeadline(deadline)
	}
	if err != nil {
		return err
	}
	var got error
	err = poll.Read(func(uintptr) bool { // whatever comes from here on wakes it up
		got = p.reader.ReadInto(&p.record)
		return !errors.Is(got, os.ErrDeadlineExceeded)
	})
	if err == nil {
		return got
	}
	// The deadline, Flush or Close. Not all records wake anybody up.
	if got = p.reader.ReadInto(&p.record); errors.Is(got, os.ErrDeadlineExceeded) {
		return err
	}
	return got
}

// Loss is what was lost of one process: samples and their weights.
type Loss struct{ Count, Value uint64 }

// Losses reads what the programs had to drop since Load, by PID.
func (p *feed) Losses() (map[uint32]Loss, error) { return readLosses(p.losses) }

// Throttled reads what SetLimit has kept from being recorded since Load, by PID.
func (p *feed) Throttled() (map[uint32]Loss, error) { return readLosses(p.throttled) }

func readLosses(m *ebpf.Map) (map[uint32]Loss, error) {
	out := make(map[uint32]Loss)
	var pid uint32
	var l cpuLoss
	it := m.Iterate()
	for it.Next(&pid, &l) {
		out[pid] = Loss{l.Count, l.Value}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read BPF losses: %w", err)
	}
	return out, nil
}
