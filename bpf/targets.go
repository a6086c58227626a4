package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Target is what the programs must know of a process. Addresses are run-time addresses; without HasLayout
// only frame pointers are followed.
type Target struct {
	StartTime uint64 // clock ticks since boot; 0: whichever process has the PID
	WaitExec  bool   // sample from the next exec on
	HasLayout bool
	Cgo       bool
	HasTLS    bool
	TLS       int64

	GM, GSchedSP, GSchedPC, GSchedBP, GGoid, GLabels, GStatus uint32
	MGsignal, MCurg                                           uint32
	LabelsMap, LabelsSlice                                    bool

	Text, EText                     uint64
	SigtrampReturn, CgocallbackRet  uint64 // return addresses of the calls that switch stacks
	RacecallRet                     uint64 // return address of the call of the race detector; 0: there is none
	Restorer                        uint64 // where signal handlers return to; 0: unknown
	SigtrampDelta, CgocallbackDelta uint32
	AsmcgocallFP                    int32

	Alloc *AllocTarget // for AllocProbes; nil: its allocations are not seen
}

// SetTarget makes pid a target, or replaces what is known of it.
func (p *feed) SetTarget(pid uint32, t *Target) error {
	if err := p.targets.Put(pid, p.wire(t)); err != nil {
		return fmt.Errorf("add process %d to the BPF targets: %w", pid, err)
	}
	return nil
}

// UpdateTarget replaces what is known of a target. One that the programs have removed, since it has exited, is left alone.
func (p *feed) UpdateTarget(pid uint32, t *Target) error {
	if err := p.targets.Update(pid, p.wire(t), ebpf.UpdateExist); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("change process %d in the BPF targets: %w", pid, err)
	}
	return nil
}

// RemoveTarget ends the sampling of pid. It was none where the programs have removed it at its exit, of which a record tells.
func (p *feed) RemoveTarget(pid uint32) (was bool, err error) {
	err = p.targets.Delete(pid)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove process %d from the BPF targets: %w", pid, err)
	}
	return true, nil
}

// ForgetLosses starts anew for pid, also with what was throttled, which must not be a target any more: the programs would count on meanwhile.
func (p *feed) ForgetLosses(pid uint32) error {
	for _, m := range []*ebpf.Map{p.losses, p.throttled} {
		if err := m.Delete(pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove process %d from the BPF losses: %w", pid, err)
		}
	}
	return nil
}

// Executable is a file that processes execute, as stat(2) tells of it.
type Executable struct {
	Major, Minor uint32 // of its device
	Inode, Size  uint64
	Changed      int64 // time of its last change, in nanoseconds since 1970
}

// Ignore has processes that execute a file be no targets from now on, unless they are already: with Options.Discover. It holds for
// the file as it is, and is forgotten where there are too many. Where the file system tells stat otherwise than it tells the kernel
// (btrfs, overlays), nothing is ignored.
func (p *feed) Ignore(e Executable) error {
	const minorBits = 20 // include/linux/kdev_t.h
	key := cpuExecutable{Inode: e.Inode, Size: int64(e.Size), Changed: e.Changed, Dev: e.Major<<minorBits | e.Minor}
	if err := p.strangers.Put(key, uint8(1)); err != nil {
		return fmt.Errorf("tell BPF of an executable to ignore: %w", err)
	}
	return nil
}

func (t *Target) wire() cpuTarget {
	v := cpuTarget{
		Start: t.StartTime, Tls: t.TLS,
		G_m: uint16(t.GM), G_schedSp: uint16(t.GSchedSP), G_schedPc: uint16(t.GSchedPC), G_schedBp: uint16(t.GSchedBP),
		G_goid: uint16(t.GGoid), G_labels: uint16(t.GLabels), G_status: uint16(t.GStatus), M_gsignal: uint16(t.MGsignal), M_curg: uint16(t.MCurg),
		Text: t.Text, Etext: t.EText, Restorer: t.Restorer, RacecallRet: t.RacecallRet,
		SigtrampRet: t.SigtrampReturn, SigtrampDelta: t.SigtrampDelta,
		CgocallbackRet: t.CgocallbackRet, CgocallbackDelta: t.CgocallbackDelta, AsmcgocallFp: t.AsmcgocallFP,
	}
	for flag, on := range map[cpuTargetFlag]bool{
		cpuTargetFlagTARGET_WAIT_EXEC: t.WaitExec, cpuTargetFlagTARGET_LAYOUT: t.HasLayout,
		cpuTargetFlagTARGET_CGO: t.Cgo, cpuTargetFlagTARGET_TLS: t.HasTLS,
		cpuTargetFlagTARGET_LABELS_MAP: t.LabelsMap, cpuTargetFlagTARGET_LABELS_SLICE: t.LabelsSlice,
	} {
		if on {
			v.Flags |= uint32(flag)
		}
	}
	return v
}
