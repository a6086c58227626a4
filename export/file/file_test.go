package file

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func cpuProfile(seed uint64) *export.Profile {
	return &export.Profile{
		Kind: "cpu", PID: 42, Comm: "api", Start: time.Unix(1e9, 0), Duration: time.Second, Data: randomProfile(seed),
	}
}

func listing(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func mustExport(t *testing.T, e *Exporter, p *export.Profile) {
	t.Helper()
	if err := e.Export(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

func TestFileAppearsWholeAndIsParsedByPprof(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "cpu.pb.gz")
	if err := os.WriteFile(name, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(name); string(b) != "older" {
		t.Errorf("before Export the file is %q", b)
	}
	want := cpuProfile(1)
	mustExport(t, e, want)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := profile.ParseData(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != want.Data.String() {
		t.Errorf("read back:\n%s\nwant:\n%s", got, want.Data)
	}
	if st, _ := os.Stat(name); st.Mode() != 0o644 {
		t.Errorf("mode %v", st.Mode())
	}
	if d := cmp.Diff([]string{"cpu.pb.gz"}, listing(t, dir)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{name}, e.Names()); d != "" {
		t.Error(d)
	}
}

func TestCloseWithoutProfileLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(filepath.Join(dir, "x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(listing(t, dir)); n != 1 {
		t.Errorf("%d temporary files while open", n)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(filepath.Join(dir, "out"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); len(got) != 0 {
		t.Errorf("left over: %q", got)
	}
}

func TestSecondProfileInOneFileIsRefused(t *testing.T) {
	e, err := Open(filepath.Join(t.TempDir(), "x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	mustExport(t, e, cpuProfile(1))
	if err := e.Export(t.Context(), cpuProfile(2)); !errors.Is(err, ErrUsage) {
		t.Errorf("second profile: %v", err)
	}
	w, err := NewWriter(io.Discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustExport(t, w, cpuProfile(1))
	if err := w.Export(t.Context(), cpuProfile(2)); !errors.Is(err, ErrUsage) {
		t.Errorf("second profile to a stream: %v", err)
	}
}

func TestLinkIsReplacedNotFollowed(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "cpu.pb.gz")
	for _, target := range []string{victim, "/dev/null", filepath.Join(dir, "none")} {
		os.Remove(name)
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
		e, err := Open(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		mustExport(t, e, cpuProfile(1))
		if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() {
			t.Errorf("link to %s: afterwards %v, %v", target, st.Mode(), err)
		}
	}
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("victim is now %q", b)
	}
}

func TestDirectoryNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	e, err := OpenDir(dir, &Options{Format: Folded})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, comm := range []string{"api", "api", "../../etc/x", "", ".hidden", "-rf", "a b\n\x1b[2J", "日本語", strings.Repeat("x", 300)} {
		p := cpuProfile(1)
		p.Comm = comm
		mustExport(t, e, p)
	}
	merged := cpuProfile(1)
	merged.PID, merged.Comm = 0, "merged"
	mustExport(t, e, merged)
	want := []string{
		"_._.._etc_x-42.cpu.folded", "___-42.cpu.folded", "_hidden-42.cpu.folded", "_rf-42.cpu.folded",
		"a_b___2J-42.cpu.folded", "api-42.cpu-2.folded", "api-42.cpu.folded", "merged.cpu.folded", "unknown-42.cpu.folded",
		strings.Repeat("x", 64) + "-42.cpu.folded",
	}
	got := listing(t, dir)
	for _, n := range want {
		if !contains(got, n) {
			t.Errorf("no %q in %q", n, got)
		}
	}
	if len(got) != 10 {
		t.Errorf("%d files: %q", len(got), got)
	}
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func TestErrorsBeforeSampling(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(plain, nil); !errors.Is(err, ErrUsage) {
		t.Errorf("directory that is a file: %v", err)
	}
	if _, err := Open(dir, nil); !errors.Is(err, ErrUsage) {
		t.Errorf("file that is a directory: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "none", "x"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such directory: %v", err)
	}
	if _, err := Open("/proc/pprofd-test", nil); err == nil {
		t.Error("a file in /proc was opened")
	}
	if _, err := Open(filepath.Join(dir, "x"), &Options{Format: "svg"}); !errors.Is(err, ErrUsage) {
		t.Errorf("unknown format: %v", err)
	}
	if d := cmp.Diff([]string{"plain"}, listing(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name, nil); err == nil || !strings.Contains(err.Error(), "reader") {
		t.Errorf("pipe without reader: %v", err)
	}
	r, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := Open(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustExport(t, e, cpuProfile(1))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := profile.Parse(r); err != nil {
		t.Errorf("read from the pipe: %v", err)
	}
}

func TestForeignPipeIsRefused(t *testing.T) {
	needs.Root(t)
	name := filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(syscall.Mkfifo(name, 0o666), os.Chown(name, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := Open(name, nil); err == nil {
		t.Error("a pipe of another user was opened")
	}
	e, err := Open(name, &Options{Owner: &Owner{12345, 12345}})
	if err != nil {
		t.Fatalf("a pipe of the invoking user: %v", err)
	}
	e.Close()
}

func TestOwner(t *testing.T) {
	needs.Root(t)
	dir := filepath.Join(t.TempDir(), "new")
	e, err := OpenDir(dir, &Options{Owner: &Owner{12345, 54321}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	mustExport(t, e, cpuProfile(1))
	for _, name := range append(e.Names(), dir) {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if s := st.Sys().(*syscall.Stat_t); s.Uid != 12345 || s.Gid != 54321 {
			t.Errorf("%s belongs to %d:%d", name, s.Uid, s.Gid)
		}
	}
}

func TestDevFull(t *testing.T) {
	e, err := Open("/dev/full", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Export(t.Context(), cpuProfile(1)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Export: %v", err)
	}
}

func TestTextCannotSteerTheTerminal(t *testing.T) {
	p := cpuProfile(1)
	for _, f := range p.Data.Function {
		f.Name = "evil\x1b[2J\r\n;" + f.Name
	}
	for _, f := range []Format{Folded, Text} {
		var b bytes.Buffer
		e, err := NewWriter(&b, &Options{Format: f})
		if err != nil {
			t.Fatal(err)
		}
		mustExport(t, e, p)
		if strings.ContainsAny(b.String(), "\x1b\r") || !strings.Contains(b.String(), "evil") {
			t.Errorf("%s: %q", f, b.String())
		}
	}
}
