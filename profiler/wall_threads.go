package profiler

import (
	"encoding/binary"
	"path/filepath"
	"strconv"

	"github.com/pprofd/pprofd/internal/procfs"
)

// threads tells what the threads of a process do.
type threads struct {
	all    procfs.FS
	known  map[uint64]int // IDs as the process sees them -> as we do
	listed bool           // in this snapshot
}

func newThreads(root string, pid int) threads {
	return threads{all: procfs.New(filepath.Join(root, strconv.Itoa(pid), "task")), known: make(map[uint64]int)}
}

func (t *threads) begin() { t.listed = false }

// busy says whether the thread whose m is at an address has a CPU, or waits for one and for nothing else. Where that cannot be found out it
// has not.
func (t *threads) busy(g *Goroutines, m uint64) bool {
	if m == 0 || g.layout.MProcid == 0 {
		return false
	}
	var b [8]byte
	if _, err := g.mem.ReadAt(b[:], int64(m)+int64(g.layout.MProcid)); err != nil {
		return false
	}
	tid, ok := t.host(binary.LittleEndian.Uint64(b[:]))
	if !ok {
		return false
	}
	stat, err := t.all.Proc(tid).Stat()
	return err == nil && stat.State == 'R'
}

// host finds the ID that we see of a thread that the process sees as id: another one where it has a PID namespace of its own.
func (t *threads) host(id uint64) (int, bool) {
	if tid, ok := t.known[id]; ok {
		return tid, true
	}
	if t.listed {
		return 0, false
	}
	t.listed = true
	clear(t.known)
	all, err := t.all.PIDs()
	if err != nil {
		return 0, false
	}
	for _, tid := range all {
		status, err := t.all.Proc(tid).Status()
		if err == nil && len(status.NSPid) > 0 {
			t.known[uint64(status.NSPid[len(status.NSPid)-1])] = tid
		}
	}
	tid, ok := t.known[id]
	return tid, ok
}
