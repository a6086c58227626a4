package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// Victims tells of processes that the kernel kills for lack of memory: all of the machine, each as soon as it is chosen. For
// one goroutine, but for Close.
type Victims struct {
	objs   oomObjects
	link   link.Link
	nested bool // our PIDs are not the kernel's
	reader *ringbuf.Reader
	record ringbuf.Record
}

// Victim is one of them.
type Victim struct {
	PID   uint32 // 0: we have a PID namespace of our own, and other numbers; of any of its threads where Start is 0
	Start uint64 // when the process started, in clock ticks since boot; 0: the kernel (an older one) does not tell
}

// WatchVictims attaches to the tracepoint oom/mark_victim. Errors are those of Load.
func WatchVictims() (*Victims, error) {
	spec, err := loadOom()
	if err != nil {
		return nil, fmt.Errorf("read embedded BPF programs: %w", err)
	}
	v := new(Victims)
	_, _, v.nested = ownPIDNamespace()
	opts := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernelTypes(spec)}}
	if err := spec.LoadAndAssign(&v.objs, &opts); err != nil {
		return nil, explain("load the BPF program that hears of OOM victims", err)
	}
	if v.link, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "mark_victim", Program: v.objs.OomVictim}); err != nil {
		return nil, errors.Join(explain("attach to tracepoint oom/mark_victim", err), v.Close())
	}
	if v.reader, err = ringbuf.NewReader(v.objs.Victims); err != nil {
		return nil, errors.Join(fmt.Errorf("open BPF ring buffer: %w", err), v.Close())
	}
	return v, nil
}

// Read waits for the next victim, at most until deadline: os.ErrDeadlineExceeded.
func (v *Victims) Read(deadline time.Time) (Victim, error) {
	v.reader.SetDeadline(deadline)
	if err := v.reader.ReadInto(&v.record); err != nil {
		return Victim{}, err
	}
	var w oomVictim
	if err := binary.Read(bytes.NewReader(v.record.RawSample), binary.LittleEndian, &w); err != nil {
		return Victim{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case !v.nested:
		return Victim{PID: w.Pid, Start: w.Start}, nil
	case w.Start == 0:
		return Victim{}, fmt.Errorf("this kernel names OOM victims by the host's PIDs: %w; run pprofd in the host's PID namespace", ErrNotSupported)
	}
	return Victim{Start: w.Start}, nil
}

// Close ends it.
func (v *Victims) Close() error {
	var errs []error
	if v.link != nil {
		errs = append(errs, v.link.Close())
	}
	if v.reader != nil {
		errs = append(errs, v.reader.Close())
	}
	return errors.Join(append(errs, v.objs.Close())...)
}
