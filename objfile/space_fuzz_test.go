//go:build linux

package objfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzSpace opens a process whose mappings, memory and executable are all crafted. "FILE" in maps stands for the device
// and inode of the executable. Whatever they are, the mappings are in order, each has an image, and everything is given
// back in the end.
func FuzzSpace(f *testing.F) {
	p := newFakeProcess(f)
	exe := synthetic()
	packed := exe[:0x2000]
	for _, maps := range []string{
		"400000-402000 r-xp 00000000 FILE /bin/app\n7ff000-801000 r-xp 0 00:00 0 [vdso]\n",
		"400000-402000 r-xp 00000000 00:00 0\n500000-501000 rwxp 0 0:0 0 [anon:jit]\n",
		"400000-401000 r-xp 0 FILE /bin/app (deleted)\n400800-402000 r-xp 1000 FILE /bin/app\n",
		"1000-7fffffffffff r-xp 0 FILE /a\nffffffffff600000-ffffffffff601000 --xp 0 0:0 0 [vsyscall]\n",
	} {
		f.Add([]byte(maps), []byte(strings.ReplaceAll(maps, "400000", "400800")), packed, uint32(0x400000), exe)
		f.Add([]byte(maps), []byte(nil), exe, uint32(0x7ff000), packed[:0x800])
	}
	p.opens(f, "400000-402000 r-xp 00000000 FILE /bin/app\n", exe)
	f.Fuzz(func(t *testing.T, maps, later, memory []byte, base uint32, exe []byte) {
		p.write(t, maps, memory, int64(base), exe)
		images := NewImages()
		s, err := OpenSpace(images, p.root, 1)
		if err != nil {
			p.allGivenBack(t, images)
			return
		}
		p.check(t, s)
		p.writeMaps(t, later)
		if s.Reload() == nil {
			p.check(t, s)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		p.allGivenBack(t, images)
	})
}

// fakeProcess is process 1 of a /proc of ours.
type fakeProcess struct {
	root, exe string
	mem       *os.File
}

// addressSpace is the size of a process's memory as a file: there is no end of it as long as the process lives.
const addressSpace = 1<<63 - 1<<12

// boundless is a file of that size, which few file systems have.
func boundless(f *testing.F) *os.File {
	fd, err := unix.MemfdCreate("mem", unix.MFD_CLOEXEC)
	if err != nil {
		f.Fatal(err)
	}
	mem := os.NewFile(uintptr(fd), "mem")
	f.Cleanup(func() { mem.Close() })
	return mem
}

func newFakeProcess(f *testing.F) *fakeProcess {
	p := &fakeProcess{root: f.TempDir(), mem: boundless(f)}
	p.exe = filepath.Join(p.root, "app")
	dir := filepath.Join(p.root, "1")
	err := os.MkdirAll(dir, 0o755)
	stat := "1 (app) S" + strings.Repeat(" 1", 49) + "\n"
	for path, data := range map[string]string{filepath.Join(dir, "stat"): stat, p.exe: ""} {
		if err == nil {
			err = os.WriteFile(path, []byte(data), 0o644)
		}
	}
	for name, file := range map[string]string{"exe": p.exe, "mem": fmt.Sprintf("/proc/self/fd/%d", p.mem.Fd())} {
		if err == nil {
			err = os.Symlink(file, filepath.Join(dir, name))
		}
	}
	if err != nil {
		f.Fatal(err)
	}
	return p
}

func (p *fakeProcess) write(t testing.TB, maps, memory []byte, base int64, exe []byte) {
	t.Helper()
	if err := os.WriteFile(p.exe, exe, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.mem.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := p.mem.Truncate(addressSpace); err != nil {
		t.Fatal(err)
	}
	if _, err := p.mem.WriteAt(memory, base); err != nil {
		t.Fatal(err)
	}
	p.writeMaps(t, maps)
}

func (p *fakeProcess) writeMaps(t testing.TB, maps []byte) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(p.exe, &st); err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("%02x:%02x %d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	maps = bytes.ReplaceAll(maps, []byte("FILE"), []byte(file))
	if err := os.WriteFile(filepath.Join(p.root, "1/maps"), maps, 0o644); err != nil {
		t.Fatal(err)
	}
}

// opens: else nothing would be tested.
func (p *fakeProcess) opens(f *testing.F, maps string, exe []byte) {
	p.write(f, []byte(maps), exe, 0x400000, exe)
	s, err := OpenSpace(NewImages(), p.root, 1)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
}

// check asks a space all that it can be asked.
func (p *fakeProcess) check(t *testing.T, s *Space) {
	t.Helper()
	var end uint64
	for _, m := range s.Mappings() {
		if m.Start < end || m.End <= m.Start || m.End > kernelSpace || m.Image == nil || s.images.Get(m.Image.ID) != m.Image {
			t.Errorf("mapping %+v behind %#x", m, end)
		}
		end = m.End
		for _, addr := range []uint64{m.Start, m.End - 1} {
			if a, ok := s.Resolve(addr); !ok || a.Image != m.Image.ID || a.Off != addr-m.Bias {
				t.Errorf("%#x resolves to %+v %v in %+v", addr, a, ok, m)
			}
		}
		if m.Image.File != nil {
			m.Image.File.Symbol(m.Start - m.Bias)
		}
	}
	if m := s.Main(); m != nil && (m.Image.File == nil || s.Mapping(m.Start) == nil) {
		t.Errorf("main %+v", m)
	}
	var b [64]byte
	for _, addr := range []uint64{0, 0x400000, end, ^uint64(0), kernelSpace - 1} {
		_ = s.ReadMem(b[:], addr)
	}
}

func (p *fakeProcess) allGivenBack(t *testing.T, images *Images) {
	t.Helper()
	if n := images.Len(); n != 1 || images.files != 0 {
		t.Errorf("%d images and %d files are left", n, images.files)
	}
}
