package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
)

// firstPID is above any that Linux gives (PID_MAX_LIMIT, 4 Mi): no simulated process is ever taken for a real one.
const firstPID = 5_000_000

// simulated is a process of the simulation.
type simulated struct {
	pid   uint32
	start uint64 // clock ticks since boot
	of    *original
}

// addProcess makes the directory of a process below the simulated /proc at root.
func addProcess(root string, pid uint32, o *original, program string) (simulated, error) {
	s := simulated{pid: pid, of: o}
	from := procfs.New("").Proc(o.cmd.Process.Pid)
	dir := filepath.Join(root, strconv.Itoa(int(pid)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return s, err
	}
	stat, err1 := os.ReadFile(from.Path("stat"))
	maps, err2 := mapsOf(from, o.path, program)
	parsed, err3 := procfs.ParseStat(stat)
	if err := errors.Join(err1, err2, err3); err != nil {
		return s, err
	}
	s.start = parsed.StartTime
	stat = append(strconv.AppendUint(nil, uint64(pid), 10), stat[bytes.IndexByte(stat, ' '):]...)
	return s, errors.Join(
		os.WriteFile(filepath.Join(dir, "stat"), stat, 0o644),
		os.WriteFile(filepath.Join(dir, "maps"), maps, 0o644),
		os.Symlink(program, filepath.Join(dir, "exe")),
		os.Symlink("/", filepath.Join(dir, "root")),
		os.Symlink(from.Path("mem"), filepath.Join(dir, "mem")),
		os.Symlink(from.Path("mountinfo"), filepath.Join(dir, "mountinfo")))
}

// mapsOf is the maps file of a process as if its executable were a copy.
func mapsOf(p procfs.Proc, exe, program string) ([]byte, error) {
	b, err := os.ReadFile(p.Path("maps"))
	if err != nil {
		return nil, err
	}
	before, err := fileOf(exe)
	if err != nil {
		return nil, err
	}
	after, err := fileOf(program)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(b, []byte(before)) {
		return nil, fmt.Errorf("process %d does not map %q", p.PID, before)
	}
	b = bytes.ReplaceAll(b, []byte(before), []byte(after))
	return bytes.ReplaceAll(b, []byte(" "+exe+"\n"), []byte(" "+program+"\n")), nil
}

// fileOf is how maps tells of a file: device and inode.
func fileOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf(" %02x:%02x %d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino), nil
}
