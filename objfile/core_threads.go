package objfile

import (
	"debug/elf"
	"fmt"
)

// CoreThread is a thread of a core file's process, and where it was.
type CoreThread struct {
	ID         int    // as the process itself had it, if the kernel has written the core file
	PC, SP, LR uint64 // LR: arm64's R30. 0: the core file has no registers
}

// CoreSignal is why a core file was written.
type CoreSignal struct {
	Number int // 0: the process was not killed by a signal
	Code   int32
	// Addr is where memory could not be used, of signals that the processor raised; Sender is who has sent others.
	Addr   uint64
	Sender int
}

// Raised says whether the processor has raised the signal, at an instruction that it could not execute: nobody has sent it.
func (s CoreSignal) Raised() bool {
	switch s.Number {
	case sigILL, sigTRAP, sigBUS, sigFPE, sigSEGV:
		return s.Code > 0 && s.Code != siKernel
	}
	return false
}

// Fatal says whether the signal ends a process with a core file: gcore's have other ones (signal(7)).
func (s CoreSignal) Fatal() bool {
	switch s.Number {
	case sigQUIT, sigILL, sigABRT, sigBUS, sigFPE, sigSEGV, sigXCPU, sigXFSZ, sigSYS:
		return true
	}
	return s.Number == sigTRAP && s.Code > 0
}

// Signals by number, as on amd64 and arm64 (include/uapi/asm-generic/signal.h); and the code of those that the kernel sends.
const (
	sigQUIT, sigILL, sigTRAP, sigABRT, sigBUS, sigFPE = 3, 4, 5, 6, 7, 8
	sigSEGV, sigXCPU, sigXFSZ, sigSYS                 = 11, 24, 25, 31
	siKernel                                          = 0x80
)

// String names the signal.
func (s CoreSignal) String() string {
	names := map[int]string{
		sigQUIT: "SIGQUIT", sigILL: "SIGILL", sigTRAP: "SIGTRAP", sigABRT: "SIGABRT", sigBUS: "SIGBUS", sigFPE: "SIGFPE",
		sigSEGV: "SIGSEGV", sigXCPU: "SIGXCPU", sigXFSZ: "SIGXFSZ", sigSYS: "SIGSYS",
	}
	if name := names[s.Number]; name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", s.Number)
}

// noteSignal is NT_SIGINFO (include/uapi/linux/elf.h).
const noteSignal = 0x53494749

// siginfoSize is that of what is read of siginfo_t (include/uapi/asm-generic/siginfo.h).
const siginfoSize = 24

// DecodeSignal reads the beginning of a siginfo_t.
func DecodeSignal(b []byte) (s CoreSignal) {
	if len(b) < siginfoSize {
		return s
	}
	s.Number, s.Code = int(int32(le.Uint32(b))), int32(le.Uint32(b[8:]))
	if s.Raised() {
		s.Addr = le.Uint64(b[16:])
	} else {
		s.Sender = int(int32(le.Uint32(b[16:])))
	}
	return s
}

// Where NT_PRSTATUS has what (include/linux/elfcore.h: elf_prstatus; arch/x86/include/asm/user_64.h, arch/arm64: user_pt_regs).
const (
	statusSignal = 12 // pr_cursig: what the thread was ended by
	statusPID    = 32
	statusRegs   = 112

	amd64RIP, amd64RSP, amd64Regs        = 16, 19, 27
	arm64LR, arm64SP, arm64PC, arm64Regs = 30, 31, 32, 34
)

// Machine is that of the process.
func (c *Core) Machine() elf.Machine { return c.machine }

// noteThread takes what the note of a thread says. The first is of the one that the core was written for.
func (c *Core) noteThread(b []byte) {
	t := CoreThread{ID: int(int32(le.Uint32(b[statusPID:])))}
	reg := func(i int) uint64 { return le.Uint64(b[statusRegs+8*i:]) }
	switch {
	case c.machine == elf.EM_X86_64 && len(b) >= statusRegs+8*amd64Regs:
		t.PC, t.SP = reg(amd64RIP), reg(amd64RSP)
	case c.machine == elf.EM_AARCH64 && len(b) >= statusRegs+8*arm64Regs:
		t.PC, t.SP, t.LR = reg(arm64PC), reg(arm64SP), reg(arm64LR)
	}
	if len(c.Threads) == 0 && c.Signal.Number == 0 {
		c.Signal.Number = int(int16(le.Uint16(b[statusSignal:])))
	}
	c.Threads = append(c.Threads, t)
}

// noteSiginfo takes the signal of the first thread.
func (c *Core) noteSiginfo(b []byte) {
	if s := DecodeSignal(b); len(c.Threads) <= 1 && s.Number == c.Signal.Number {
		c.Signal = s
	}
}
