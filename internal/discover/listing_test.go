package discover

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestListing: the listing of /proc has the inodes that stat has, and each process has its own.
func TestListing(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), needs.Tool(t, "sleep"), "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); _ = cmd.Wait() }()
	in := NewInspector("")
	all, err := in.list()
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[uint64]int{}
	for _, pid := range []int{1, os.Getpid(), cmd.Process.Pid} {
		i := slices.IndexFunc(all, func(p listed) bool { return p.pid == pid })
		if i < 0 {
			t.Fatalf("%d is not in %v", pid, all)
		}
		var st syscall.Stat_t
		if err := syscall.Stat("/proc/"+strconv.Itoa(pid), &st); err != nil || st.Ino != all[i].inode {
			t.Errorf("%+v, %v; stat says %d", all[i], err, st.Ino)
		}
		inodes[all[i].inode]++
	}
	pids, err := in.PIDs()
	if err != nil || len(inodes) != 3 || !slices.IsSortedFunc(all, func(a, b listed) int { return a.pid - b.pid }) || len(all) < len(pids)/2 {
		t.Errorf("%v, %v, %v", inodes, err, all)
	}
	if _, err := NewInspector("/nonexistent").list(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestScanOfKnownProcesses: what has a process's number is looked at anew if it is another, and all are in turn.
func TestScanOfKnownProcesses(t *testing.T) {
	m := newMachine(t)
	d := m.discovery(Config{})
	for pid := 100; pid < 100+recheckOthers; pid++ {
		m.spawn(fake{pid: pid, start: 1, comm: "sh", exe: notGo(t)})
	}
	if got := scan(t, d); len(got) > 0 || len(d.others) < recheckOthers {
		t.Fatalf("%v; %v", got, d.others)
	}
	// Another process with the same number: its directory is another.
	m.spawn(fake{pid: 1100, start: 2, comm: "new", exe: spin(t)})
	m.kill(100) // the stat file still says 1100, which nobody reads
	if err := os.Rename(filepath.Join(m.root, "1100"), filepath.Join(m.root, "100")); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, d); !slices.Equal(got, []Proc{{100, 2}}) {
		t.Errorf("another process: %v", got)
	}
	// The same process executes another program, and nobody says so.
	for pid := 101; pid < 100+recheckOthers; pid++ {
		m.spawn(fake{pid: pid, start: 1, comm: "exec", exe: spin(t)})
	}
	found := map[Proc]bool{}
	for range recheckOthers {
		for _, p := range scan(t, d) {
			found[p] = true
		}
	}
	if len(found) != recheckOthers || len(scan(t, d)) != recheckOthers {
		t.Errorf("%v", found)
	}
	// Somebody says so.
	m.spawn(fake{pid: 200, start: 1, comm: "sh", exe: notGo(t)})
	scan(t, d)
	m.spawn(fake{pid: 200, start: 1, comm: "go", exe: spin(t)})
	if !d.Look(200, 1) || !slices.Contains(scan(t, d), Proc{200, 1}) {
		t.Error("Look says that it is Go, and Scan does not")
	}
	m.kill(101)
	m.kill(200)
	if got := scan(t, d); len(got) != recheckOthers-1 {
		t.Errorf("%v", got)
	}
	for pid := 100; pid < 100+recheckOthers; pid++ {
		m.kill(pid)
	}
	if got := scan(t, d); len(got) > 0 || len(d.others) > 1 {
		t.Errorf("%v, %v", got, d.others)
	}
}

func FuzzListing(f *testing.F) {
	entry := func(name string, length int) []byte {
		b := make([]byte, max(length, direntName+len(name)+1))
		binary.NativeEndian.PutUint64(b, 77)
		binary.NativeEndian.PutUint16(b[direntLength:], uint16(length))
		copy(b[direntName:], name)
		return b
	}
	f.Add(slices.Concat(entry("1", 24), entry("self", 24), entry("42", 24)))
	f.Add(entry("42", 0))
	f.Add(entry("42", 1000)[:30])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range appendListed(nil, b) {
			if p.pid <= 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}
