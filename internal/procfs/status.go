package procfs

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Status is what /proc/PID/status says (fs/proc/array.c, proc_pid_status).
type Status struct {
	// UID and GID are the real, effective, saved and file system IDs, as seen from the reader's user namespace.
	UID, GID [4]uint32
	// NSPid are the process's PIDs from the reader's PID namespace inwards; the last is what the process itself sees.
	NSPid []int
	// CapEff are the effective capabilities, one bit each.
	CapEff uint64
}

// maxNSPid is above the kernel's limit of nested PID namespaces (MAX_PID_NS_LEVEL 32).
const maxNSPid = 64

// Status reads /proc/PID/status.
func (p Proc) Status() (Status, error) {
	b, err := p.read("status", maxStatus)
	if err != nil {
		return Status{}, err
	}
	return ParseStatus(b)
}

// ParseStatus parses the content of a status file. Lines that it does not know are ignored; a file
// without Uid and Gid lines is an error.
func ParseStatus(b []byte) (Status, error) {
	var st Status
	seen := 0
	for line := range bytes.Lines(b) {
		key, value, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":"))
		if !ok || !wantedStatus(key) {
			continue
		}
		n, err := st.set(string(key), string(value))
		if err != nil {
			return Status{}, fmt.Errorf("parse status: %s: %w", key, err)
		}
		seen += n
	}
	if seen < 2 {
		return Status{}, fmt.Errorf("parse status: Uid or Gid is missing: %w", ErrFormat)
	}
	return st, nil
}

func wantedStatus(key []byte) bool {
	switch string(key) {
	case "Uid", "Gid", "CapEff", "NSpid":
		return true
	}
	return false
}

// set stores one line and says how many of the required ones it was.
func (st *Status) set(key, value string) (required int, err error) {
	switch key {
	case "Uid":
		return 1, parseIDs(value, &st.UID)
	case "Gid":
		return 1, parseIDs(value, &st.GID)
	case "CapEff":
		st.CapEff, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
	case "NSpid":
		st.NSPid, err = parsePIDs(value)
	}
	if err != nil {
		return 0, ErrFormat
	}
	return 0, nil
}

func parseIDs(s string, ids *[4]uint32) error {
	f := strings.Fields(s)
	if len(f) != len(ids) {
		return ErrFormat
	}
	for i, v := range f {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return ErrFormat
		}
		ids[i] = uint32(n)
	}
	return nil
}

func parsePIDs(s string) ([]int, error) {
	f := strings.Fields(s)
	if len(f) > maxNSPid {
		return nil, ErrFormat
	}
	pids := make([]int, len(f))
	for i, v := range f {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return nil, ErrFormat
		}
		pids[i] = int(n)
	}
	return pids, nil
}

// MonotonicOffset is how far the process's monotonic clock is ahead of ours, in nanoseconds: time namespaces differ in it
// (time_namespaces(7)). It is 0 where the kernel has none.
func (p Proc) MonotonicOffset() int64 {
	return p.monotonic() - Proc{dir: "/proc/self"}.monotonic()
}

// monotonic is the offset of the process's time namespace, for its children; it lives in it itself unless it has just made it.
func (p Proc) monotonic() int64 {
	b, err := p.read("timens_offsets", maxStatus)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var sec, ns int64
		if n, _ := fmt.Sscanf(line, "monotonic %d %d", &sec, &ns); n == 2 {
			return sec*int64(time.Second) + ns
		}
	}
	return 0
}
