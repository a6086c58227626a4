package needs

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeBPF uses the bare system calls, so that it does not depend on the code under test.
func probeBPF() error {
	prog, err := loadEmptyProgram()
	if err != nil {
		return fmt.Errorf("loading a BPF program needs CAP_BPF and CAP_PERFMON, or root: %w", err)
	}
	defer unix.Close(prog)
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: 1_000_000,
		Bits:   unix.PerfBitDisabled,
	}
	event, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening a perf event on CPU 0 needs CAP_PERFMON, or root: %w", err)
	}
	defer unix.Close(event)
	if err := unix.IoctlSetInt(event, unix.PERF_EVENT_IOC_SET_BPF, prog); err != nil {
		return fmt.Errorf("attaching a BPF program to a perf event: %w", err)
	}
	return nil
}

// loadEmptyProgram loads "r0 = 0; exit" as a perf_event program and returns its descriptor.
func loadEmptyProgram() (int, error) {
	insns := [2]uint64{0xb7, 0x95} // BPF_ALU64|BPF_MOV|BPF_K, BPF_JMP|BPF_EXIT; linux/bpf.h, struct bpf_insn
	license := [4]byte{'G', 'P', 'L'}
	attr := struct { // union bpf_attr, the part for BPF_PROG_LOAD, cut after log_buf; 64-bit only
		progType, insnCount uint32
		insns, license      unsafe.Pointer
		logLevel, logSize   uint32
		logBuf              unsafe.Pointer
	}{
		progType:  unix.BPF_PROG_TYPE_PERF_EVENT,
		insnCount: uint32(len(insns)),
		insns:     unsafe.Pointer(&insns),
		license:   unsafe.Pointer(&license),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	for range 100 {
		if errno != unix.EAGAIN { // a signal interrupted the verifier
			break
		}
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	if errno != 0 {
		return -1, errno
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}
