package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/internal/private"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// hands is a clock that a test sets.
type hands struct {
	wall time.Time
	mono time.Duration
}

func (h *hands) read() (time.Time, time.Duration) { return h.wall, h.mono }

func (h *hands) pass(d time.Duration) {
	h.wall = h.wall.Add(d)
	h.mono += d
}

func newHands() *hands { return &hands{wall: time.Date(2026, 2, 3, 4, 5, 6, 7e6, time.UTC)} }

func openStore(t *testing.T, o StoreOptions) *Store {
	t.Helper()
	s, err := OpenStore(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// indexedStore is one that has looked through its directory: a test's clock is not for two goroutines.
func indexedStore(t *testing.T, o StoreOptions) *Store {
	t.Helper()
	s := openStore(t, o)
	s.walking.Wait()
	return s
}

func storeProfile(service string, pid int, start time.Time) *export.Profile {
	p := cpuProfile(1)
	p.Service, p.PID, p.StartTicks, p.Start = service, pid, uint64(pid)*10, start
	return p
}

func save(t *testing.T, s *Store, p *export.Profile) {
	t.Helper()
	if err := s.Export(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// paths lists everything below dir; directories end in /.
func paths(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if e.IsDir() {
			rel += "/"
		}
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func files(t *testing.T, dir string) []string {
	return slices.DeleteFunc(paths(t, dir), func(p string) bool { return strings.HasSuffix(p, "/") })
}

func TestStoreFileSaysWhatItIs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lib", "pprofd")
	s := openStore(t, StoreOptions{Dir: dir})
	p := storeProfile("a/b", 42, time.Date(2026, 1, 2, 4, 4, 5, 678e6, time.FixedZone("", 3600)))
	p.Data.Comments = []string{"of the profile itself"}
	p.Labels = []export.Label{{Name: "pid", Value: "42"}, {Name: "x", Value: "line\nbreak \xff"}}
	before := p.Data.Copy()
	save(t, s, p)
	const name = "a%2Fb/42-420/cpu-20260102T030405.678Z.pb.gz"
	if d := gocmp.Diff([]string{"a%2Fb/", "a%2Fb/42-420/", name}, paths(t, dir)); d != "" {
		t.Error(d)
	}
	for path, mode := range map[string]fs.FileMode{"": 0o700, "a%2Fb": 0o700, "a%2Fb/42-420": 0o700, name: 0o600} {
		if st, err := os.Stat(filepath.Join(dir, path)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v; want %o", path, st.Mode(), err, mode)
		}
	}
	got := parseFile(t, filepath.Join(dir, name))
	want := []string{"of the profile itself", `labels {service_name="a/b", pid="42", x="line\nbreak �"}`}
	if d := gocmp.Diff(want, got.Comments); d != "" {
		t.Error(d)
	}
	if len(p.Data.Comments) != 1 {
		t.Errorf("the profile itself was changed: %q", p.Data.Comments)
	}
	if got.Comments = before.Comments; got.String() != before.String() {
		t.Errorf("-before\n%s\n+file\n%s", before, got)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-comments", filepath.Join(dir, name)).Output(); err != nil || !strings.Contains(string(out), `pid="42", `) {
		t.Errorf("go tool pprof -comments: %v\n%s", err, out)
	}
}

func parseFile(t *testing.T, name string) *profile.Profile {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Names that are taken belong to another window: the clock was set back.
func TestStoreNamesDoNotCollide(t *testing.T) {
	dir := t.TempDir()
	s := indexedStore(t, StoreOptions{Dir: dir})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range 3 {
		save(t, s, storeProfile("api", 1, at))
	}
	want := []string{
		"api/1-10/cpu-20260102T030405.000Z-2.pb.gz", "api/1-10/cpu-20260102T030405.000Z-3.pb.gz", "api/1-10/cpu-20260102T030405.000Z.pb.gz",
	}
	if d := gocmp.Diff(want, files(t, dir)); d != "" {
		t.Error(d)
	}
	for range maxTwin - 3 {
		save(t, s, storeProfile("api", 1, at))
	}
	if err := s.Export(t.Context(), storeProfile("api", 1, at)); err == nil || !strings.Contains(err.Error(), "is the clock stuck?") {
		t.Errorf("file %d: %v", maxTwin+1, err)
	}
	agrees(t, s)
}

// agrees compares what the store counts with what there is.
func agrees(t *testing.T, s *Store) {
	t.Helper()
	var n, bytes int64
	for f, err := range List(s.opt.Dir) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		bytes += int64(blocksOf(f.Size)) * blockLen
	}
	if st := s.Stats(); st.Files != n || st.Bytes != bytes {
		t.Errorf("the store counts %d files of %d bytes, there are %d of %d", st.Files, st.Bytes, n, bytes)
	}
}

func TestStoreRemovesTheOldest(t *testing.T) {
	h := newHands()
	for name, o := range map[string]StoreOptions{
		"by number": {MaxFiles: 5},
		"by size":   {MaxSize: 5*blockLen + 100},
		"by age":    {MaxAge: 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			o.Dir, o.clock = t.TempDir(), h.read
			s := indexedStore(t, o)
			for i := range 20 {
				h.pass(10 * time.Second)
				save(t, s, storeProfile(fmt.Sprintf("s%d", i/2), 100+i, h.wall))
			}
			var left []string
			for _, f := range paths(t, o.Dir) {
				if strings.HasSuffix(f, "/") {
					left = append(left, f)
				}
			}
			want := []string{"s7/", "s7/115-1150/", "s8/", "s8/116-1160/", "s8/117-1170/", "s9/", "s9/118-1180/", "s9/119-1190/"}
			if d := gocmp.Diff(want, left); d != "" {
				t.Error(d)
			}
			agrees(t, s)
			if st := s.Stats(); st.RemovedSize+st.RemovedCount+st.RemovedAge != 15 || st.Written != 20 || st.NotRemoved != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestStoreHoldsItsLimitsFromTheStart(t *testing.T) {
	dir, h := t.TempDir(), newHands()
	s := indexedStore(t, StoreOptions{Dir: dir, clock: h.read})
	for i := range 700 { // more than a batch
		save(t, s, storeProfile(fmt.Sprint("s", i%7), 1+i%3, h.wall.Add(time.Duration(rand.Int64N(1e12)))))
	}
	s.Close()
	var times []time.Time
	for f, err := range List(dir) {
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, f.Time)
	}
	slices.SortFunc(times, time.Time.Compare)
	h.pass(time.Hour)
	s = indexedStore(t, StoreOptions{Dir: dir, MaxFiles: 100, clock: h.read})
	agrees(t, s)
	var left []time.Time
	for f, err := range List(dir) {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, f.Time)
	}
	slices.SortFunc(left, time.Time.Compare)
	if d := gocmp.Diff(times[600:], left); d != "" || s.Stats().RemovedCount != 600 {
		t.Errorf("%+v\n%s", s.Stats(), d)
	}
}

func TestStoreRemovesLeftovers(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"api/1-10", "api/2-20", "gone/3-30", "other things/x"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	keep := []string{"api/1-10/cpu-20260102T030405.000Z.pb.gz", "api/1-10/notes", "other things/x/.pprofd-1", "token"}
	remove := []string{".pprofd-A", "api/1-10/.pprofd-B", "gone/3-30/.pprofd-C"}
	for _, name := range slices.Concat(keep, remove) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "api/1-10/heap-20260102T030405.000Z.pb.gz"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "api/1-10/cpu-20260102T030406.000Z.pb.gz")); err != nil {
		t.Fatal(err)
	}
	s := indexedStore(t, StoreOptions{Dir: dir})
	want := []string{"api/", "api/1-10/", keep[0], "api/1-10/cpu-20260102T030406.000Z.pb.gz", keep[1], "other things/", "other things/x/", keep[2], keep[3]}
	if d := gocmp.Diff(want, paths(t, dir)); d != "" {
		t.Error(d)
	}
	if st := s.Stats(); st.Leftovers != 4 || st.Files != 1 || st.Unreadable != 0 {
		t.Errorf("%+v", st)
	}
}

// Profiles come while the walk counts what was there.
func TestStoreWritesWhileItCounts(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, StoreOptions{Dir: dir})
	at := time.Now().Add(-time.Hour)
	var wg sync.WaitGroup
	for range 5 {
		for i := range 400 {
			save(t, s, storeProfile(fmt.Sprint("s", i%5), 1+i%50, at))
			at = at.Add(time.Millisecond)
		}
		s.Close()
		s = openStore(t, StoreOptions{Dir: dir})
		for w := range 2 {
			wg.Go(func() {
				for i := range 100 {
					if err := s.Export(t.Context(), storeProfile(fmt.Sprint("s", i%5), 1000*w+1+i%50, at.Add(time.Duration(i)*time.Minute))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		s.walking.Wait()
		if !s.Stats().Indexed {
			t.Error("not indexed")
		}
		agrees(t, s)
	}
	if st := s.Stats(); st.Files != 3000 {
		t.Errorf("%+v", st)
	}
}

// The clock was ahead by a year: what it named then must not outlive all else, and must not push new files out.
func TestStoreClockSetBack(t *testing.T) {
	dir, h := t.TempDir(), newHands()
	s := indexedStore(t, StoreOptions{Dir: dir, MaxFiles: 4, MaxAge: time.Hour, clock: h.read})
	right := h.wall
	h.wall = h.wall.AddDate(1, 0, 0)
	for i := range 4 {
		h.pass(time.Second)
		save(t, s, storeProfile("ahead", 1+i, h.wall))
	}
	h.wall = right
	for i := range 3 {
		h.pass(time.Minute)
		save(t, s, storeProfile("now", 1+i, h.wall))
	}
	want := []string{"ahead/", "ahead/4-40/", "now/", "now/1-10/", "now/2-20/", "now/3-30/"}
	if d := gocmp.Diff(want, dirs(t, dir)); d != "" {
		t.Error(d)
	}
	s.Close()
	s = indexedStore(t, StoreOptions{Dir: dir, MaxFiles: 4, MaxAge: time.Hour, clock: h.read})
	h.pass(50 * time.Minute)
	save(t, s, storeProfile("now", 4, h.wall))
	h.pass(8*time.Minute + 30*time.Second)
	s.Expire()
	if d := gocmp.Diff([]string{"now/", "now/2-20/", "now/3-30/", "now/4-40/"}, dirs(t, dir)); d != "" {
		t.Error("after a restart: ", d)
	}
	agrees(t, s)
}

func dirs(t *testing.T, dir string) []string {
	return slices.DeleteFunc(paths(t, dir), func(p string) bool { return !strings.HasSuffix(p, "/") })
}

// A clock that is ahead for less than an hour removes nothing.
func TestStoreClockSetForward(t *testing.T) {
	dir, h := t.TempDir(), newHands()
	s := indexedStore(t, StoreOptions{Dir: dir, MaxAge: time.Hour, clock: h.read})
	save(t, s, storeProfile("api", 1, h.wall))
	right := h.wall
	h.wall = h.wall.AddDate(1, 0, 0)
	h.pass(10 * time.Second)
	s.Expire()
	if n := s.Stats().Files; n != 1 {
		t.Errorf("%d files right after the step", n)
	}
	h.pass(61 * time.Minute)
	s.Expire()
	if n := s.Stats().Files; n != 0 {
		t.Errorf("%d files an hour after the step", n)
	}
	h.wall = right
	save(t, s, storeProfile("api", 1, time.Unix(-5, 0)))
	if f := files(t, dir); len(f) != 1 || f[0] != "api/1-10/cpu-19700101T000000.000Z.pb.gz" {
		t.Errorf("a clock before 1970: %q", f)
	}
}

func TestStoreRefusesWhatIsNotItsOwn(t *testing.T) {
	needs.Root(t)
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"a directory of another user":      {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 0)) }, "belongs to another user"},
		"a directory that others write to": {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) }, "chmod go-w"},
		"a link of another user":           {func(dir string) error { return errors.Join(os.Symlink("/root", dir), os.Lchown(dir, 12345, 0)) }, "symbolic link of another user"},
		"a file":                           {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			s, err := OpenStore(StoreOptions{Dir: dir})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A link in the store leads nowhere outside.
func TestStoreDoesNotLeaveItsDirectory(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	s := indexedStore(t, StoreOptions{Dir: dir})
	if err := os.Symlink(other, filepath.Join(dir, "api")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(other, "2-20"), 0o700); err != nil {
		t.Fatal(err)
	}
	for pid := range 3 {
		if err := s.Export(t.Context(), storeProfile("api", pid, time.Now())); err == nil || !strings.Contains(err.Error(), "escapes") {
			t.Errorf("%v", err)
		}
	}
	if d := gocmp.Diff([]string{"2-20/"}, paths(t, other)); d != "" {
		t.Error(d)
	}
	save(t, s, storeProfile("web", 1, time.Now()))
	s.Close()
	s = indexedStore(t, StoreOptions{Dir: dir})
	if st := s.Stats(); st.Files != 1 {
		t.Errorf("%+v", st)
	}
}

func TestStoreIsForOne(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, StoreOptions{Dir: dir})
	if _, err := OpenStore(StoreOptions{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another pprofd") {
		t.Errorf("second: %v", err)
	}
	s.Close()
	if err := s.Export(t.Context(), cpuProfile(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	s.Expire()
	openStore(t, StoreOptions{Dir: dir})
}

// A program that is killed while it writes leaves whole files, and temporary ones that the next removes.
func TestStoreKilled(t *testing.T) {
	if dir := os.Getenv("PPROFD_TEST_STORE"); dir != "" {
		s, err := OpenStore(StoreOptions{Dir: dir})
		for err == nil {
			err = s.Export(t.Context(), storeProfile("api", 1, time.Now()))
		}
		t.Fatal(err)
	}
	dir, temps := t.TempDir(), 0
	for range 20 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStoreKilled$")
		cmd.Env = append(os.Environ(), "PPROFD_TEST_STORE="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for n := len(files(t, dir)); len(files(t, dir)) < n+3; {
			time.Sleep(time.Duration(rand.Int64N(5e6)))
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatal(err)
		}
		temps += strings.Count(strings.Join(files(t, dir), " "), private.TempPrefix)
	}
	t.Logf("%d temporary files were left", temps)
	s := indexedStore(t, StoreOptions{Dir: dir})
	all := files(t, dir)
	for _, f := range all {
		parseFile(t, filepath.Join(dir, f))
	}
	if st := s.Stats(); st.Files != int64(len(all)) || len(all) < 60 {
		t.Errorf("%d files, %+v", len(all), st)
	}
}

// noise does not become smaller by gzip, to speak of.
func noise(n int) string {
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%016x", rand.Uint64())
	}
	return b.String()
}

func TestStoreWithoutDescriptors(t *testing.T) {
	h := newHands()
	s := indexedStore(t, StoreOptions{Dir: t.TempDir(), MaxFiles: 3, clock: h.read})
	for i := range 3 {
		h.pass(time.Second)
		save(t, s, storeProfile("api", 1+i, h.wall))
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := syscall.Rlimit{Cur: 3, Max: was.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	h.pass(time.Second)
	err := s.Export(t.Context(), storeProfile("api", 9, h.wall))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EMFILE) {
		t.Errorf("without descriptors: %v", err)
	}
	agrees(t, s)
	save(t, s, storeProfile("api", 9, h.wall))
	agrees(t, s)
	if st := s.Stats(); st.Files != 3 || st.NotRemoved != 0 || st.Failed != 1 {
		t.Errorf("%+v", st)
	}
}

func TestStoreProfileLargerThanTheLimit(t *testing.T) {
	s := indexedStore(t, StoreOptions{Dir: t.TempDir(), MaxSize: 10 * blockLen})
	save(t, s, storeProfile("api", 1, time.Now()))
	large := storeProfile("api", 2, time.Now())
	large.Labels = []export.Label{{Name: "x", Value: noise(100 << 10)}}
	if err := s.Export(t.Context(), large); err == nil || !strings.Contains(err.Error(), "the limit of 40960") {
		t.Errorf("%v", err)
	}
	if st := s.Stats(); st.Files != 1 || st.Failed != 1 {
		t.Errorf("it pushed others out: %+v", st)
	}
	for _, o := range []StoreOptions{{MaxSize: -1}, {MaxAge: -1}, {MaxFiles: -1}, {MaxFiles: MaxStoreFiles + 1}} {
		o.Dir = t.TempDir()
		if s, err := OpenStore(o); err == nil {
			s.Close()
			t.Errorf("%+v is no error", o)
		}
	}
}

func TestStoreIndexOfAMillion(t *testing.T) {
	var x index
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range MaxStoreFiles {
		p := place{"service" + fmt.Sprint(i%20), 1 + i%200, uint64(i % 200)}
		if !x.add(p, stored{"cpu", r.Int64N(2e12), 1}, 1, 1e12) {
			t.Fatal("not added")
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 30<<20 {
		t.Errorf("%d bytes", n)
	}
	last := int64(0)
	for range x.ahead.n {
		_, f := x.oldestOf(x.oldest())
		x.pop(x.oldest())
		if f.milli <= 1e12 || f.milli < last {
			t.Fatalf("%d comes after %d", f.milli, last)
		}
		last = f.milli
	}
	x.setBack(5e11)
	if x.ahead.n < 2e5 || x.past.n < 2e5 {
		t.Errorf("set back: %d ahead, %d past", x.ahead.n, x.past.n)
	}
	x.advance(1e12)
	last = 0
	for x.files() > 0 {
		_, f := x.oldestOf(x.oldest())
		x.pop(x.oldest())
		if f.milli < last {
			t.Fatalf("%d comes after %d", f.milli, last)
		}
		last = f.milli
	}
	if x.blocks != 0 || len(x.services.ids)+len(x.kinds.ids) != 0 || len(x.past.pieces) > 2 {
		t.Errorf("left: %d blocks, %d services, %d pieces", x.blocks, len(x.services.ids), len(x.past.pieces))
	}
}

func BenchmarkStoreExport(b *testing.B) {
	s, err := OpenStore(StoreOptions{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		at = at.Add(time.Millisecond)
		if err := s.Export(b.Context(), storeProfile("api", 1+at.Nanosecond()/1e6%200, at)); err != nil {
			b.Fatal(err)
		}
	}
}
