package procfs

import (
	"bytes"
	"fmt"
	"strconv"
)

// Stat is what /proc/PID/stat says (fs/proc/array.c, do_task_stat).
type Stat struct {
	PID, PPID int
	Comm      string // at most 15 bytes for processes, 63 for kernel threads; any bytes
	State     byte   // R, S, D, Z, T, ...
	Threads   int
	// UTime, STime and StartTime are in clock ticks (100 a second on every supported architecture);
	// StartTime counts from boot. (PID, StartTime) names a process, a PID alone does not.
	UTime, STime, StartTime uint64
	// StartStack is where the stack began at the last exec: another one for each exec, at random. 0 for who may not
	// ptrace the process, and while it executes or exits.
	StartStack uint64
}

// Stat reads /proc/PID/stat.
func (p Proc) Stat() (Stat, error) {
	b, err := p.read("stat", maxStat)
	if err != nil {
		return Stat{}, gone(err)
	}
	return ParseStat(b)
}

// StartTime is when the process started, in clock ticks since boot: field 22 of /proc/PID/stat.
func (p Proc) StartTime() (uint64, error) {
	st, err := p.Stat()
	return st.StartTime, err
}

// Indexes of the fields behind the command's name; the state is 0, field 3 of proc(5).
const (
	statState     = 0
	statPPID      = 1
	statUTime     = 11
	statSTime     = 12
	statThreads   = 17
	statStartTime = 19
	statStack     = 25
	statFields    = 26
)

// ParseStat parses the content of a stat file. The name may hold spaces and parentheses, so the
// last closing parenthesis ends it.
func ParseStat(b []byte) (Stat, error) {
	left, right := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if left < 0 || right < left {
		return Stat{}, fmt.Errorf("parse stat: no command name: %w", ErrFormat)
	}
	pid, err := strconv.ParseInt(string(bytes.TrimSpace(b[:left])), 10, 32)
	if err != nil {
		return Stat{}, fmt.Errorf("parse stat: pid: %w", ErrFormat)
	}
	st := Stat{PID: int(pid), Comm: string(b[left+1 : right])}
	err = st.parseFields(bytes.Fields(b[right+1:]))
	return st, err
}

func (st *Stat) parseFields(f [][]byte) error {
	if len(f) < statFields || len(f[statState]) != 1 {
		return fmt.Errorf("parse stat: %d fields: %w", len(f), ErrFormat)
	}
	st.State = f[statState][0]
	for _, v := range []struct {
		dst   *int
		field int
	}{{&st.PPID, statPPID}, {&st.Threads, statThreads}} {
		n, err := strconv.ParseInt(string(f[v.field]), 10, 32)
		if err != nil {
			return fmt.Errorf("parse stat: field %d: %w", v.field+3, ErrFormat)
		}
		*v.dst = int(n)
	}
	for _, v := range []struct {
		dst   *uint64
		field int
	}{{&st.UTime, statUTime}, {&st.STime, statSTime}, {&st.StartTime, statStartTime}, {&st.StartStack, statStack}} {
		n, err := strconv.ParseUint(string(f[v.field]), 10, 64)
		if err != nil {
			return fmt.Errorf("parse stat: field %d: %w", v.field+3, ErrFormat)
		}
		*v.dst = n
	}
	return nil
}
