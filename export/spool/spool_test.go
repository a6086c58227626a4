package spool

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// TestRoundTrip: what is taken is what was appended, for each destination, and then the file goes.
func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "spool")
	clock := newClock()
	s := open(t, Options{Dir: dir, Clock: clock.now})
	c := attach(t, s, "a", "b")
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	want := []*export.Profile{numbered(1, clock.wall, 5), numbered(2, clock.wall.Add(-time.Minute), 7), numbered(3, clock.wall, 0)}
	want[1].Labels, want[1].PID, want[1].Kind = nil, 0, "heap"
	want[2].Labels = []export.Label{}
	for _, p := range want {
		if err := s.Append(p); err != nil {
			t.Fatal(err)
		}
	}
	if r := take(t, c[0], anything); r != nil {
		t.Fatalf("offered before it was committed: %+v", r)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	name := files(t, dir, suffix)
	if len(name) != 1 || !strings.HasSuffix(name[0], "-3-12.spool") {
		t.Errorf("%q", name)
	}
	if st, err := os.Stat(name[0]); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	for _, c := range c {
		select {
		case <-c.Ready():
		default:
			t.Error("not told")
		}
		clock.pass(time.Second)
		for i, p := range want {
			r := take(t, c, anything)
			if d := cmp.Diff(p, r.Profile); d != "" {
				t.Error(d)
			}
			if age := clock.wall.Sub(want[i].Start); r.Age != age {
				t.Errorf("%v old, not %v", r.Age, age)
			}
			if err := c.Done(r); err != nil {
				t.Error(err)
			}
			if err := c.Done(r); err == nil {
				t.Error("done twice")
			}
		}
		if st := c.Stats(); st.Delivered != (Count{3, 12}) || st.Pending != (Count{}) || len(st.Dropped) != 0 {
			t.Errorf("%+v", st)
		}
	}
	if left := files(t, dir, suffix); len(left) != 0 {
		t.Errorf("%q", left)
	}
	if st := s.Stats(); st.Bytes != 0 || st.Batches != 0 || st.Written != (Count{3, 12}) {
		t.Errorf("%+v", st)
	}
}

// TestAppendEncodes a real profile, and counts one that cannot be.
func TestAppendEncodes(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	c := attach(t, s, "a")[0]
	p := &export.Profile{Kind: "cpu", PID: 7, Start: time.Now(), Data: &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		Sample:     []*profile.Sample{{Value: []int64{3}}},
	}}
	if err := s.Append(p); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(&export.Profile{Kind: "cpu"}); !errors.Is(err, ErrRejected) {
		t.Errorf("nothing was appended: %v", err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	r := take(t, c, anything)
	if r.Profile.Data != nil {
		t.Error("it is not only the encoded profile")
	}
	got, err := r.Profile.Decode()
	if err != nil || got.Sample[0].Value[0] != 3 || r.Profile.Encoded.Total != 3 {
		t.Errorf("%v, %v", got, err)
	}
	if st := s.Stats(); st.Rejected != 1 {
		t.Errorf("%+v", st)
	}
}

// TestLargeBatches: what is appended without a commit is bounded.
func TestLargeBatches(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	c := attach(t, s, "a")[0]
	large := strings.Repeat("x", 1<<20)
	for n := range 9 {
		p := numbered(n+1, time.Now(), 1)
		p.Encoded.Gzip = []byte(large)
		if err := s.Append(p); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, dir, suffix); len(got) != 2 {
		t.Errorf("%q", got)
	}
	for n := range maxProfiles {
		if err := s.Append(numbered(n+10, time.Now(), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(numbers(1, 9+maxProfiles), drain(t, c)); d != "" {
		t.Error(d)
	}
}

// TestLanes: fresh batches and older ones, in order, without those that are passed over or taken.
func TestLanes(t *testing.T) {
	clock := newClock()
	s := open(t, Options{Dir: t.TempDir(), Clock: clock.now})
	c := attach(t, s, "a")[0]
	fill(t, s, 1, 3)
	clock.pass(20 * time.Second)
	fill(t, s, 4, 6)
	clock.pass(11 * time.Second)
	if r := take(t, c, fresh); r.Profile.PID != 4 {
		t.Errorf("fresh: %d", r.Profile.PID)
	}
	first := take(t, c, backlog)
	if first.Profile.PID != 1 {
		t.Errorf("backlog: %d", first.Profile.PID)
	}
	l := backlog
	l.Except = func(seq uint64) bool { return seq == first.Seq+1 }
	if r := take(t, c, l); r.Profile.PID != 3 {
		t.Errorf("backlog without the second: %d", r.Profile.PID)
	}
	if r := take(t, c, l); r != nil {
		t.Errorf("backlog: %d", r.Profile.PID)
	}
	c.Release(first)
	if r := take(t, c, backlog); r.Profile.PID != 1 {
		t.Errorf("backlog: %d", r.Profile.PID)
	}
	clock.pass(time.Hour)
	if r := take(t, c, fresh); r != nil {
		t.Errorf("fresh: %d", r.Profile.PID)
	}
}

// TestClockSteps: a clock that is set makes nothing older or younger.
func TestClockSteps(t *testing.T) {
	clock := newClock()
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Clock: clock.now, MaxAge: time.Hour})
	c, err := s.Attach(Destination{"a", 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1, 2)
	for _, step := range []time.Duration{24 * time.Hour, -48 * time.Hour} {
		clock.wall = clock.wall.Add(step)
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		if r := take(t, c[0], fresh); r == nil || r.Age != 0 {
			t.Errorf("after a step of %v: %+v", step, r)
		} else {
			c[0].Release(r)
		}
	}
	fill(t, s, 3, 3)
	s.Close()
	clock.wall = clock.wall.Add(-24 * time.Hour) // batches of the future, when it is opened
	s = open(t, Options{Dir: dir, Clock: clock.now, MaxAge: time.Hour})
	c, err = s.Attach(Destination{"a", 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 4, 4)
	clock.pass(11 * time.Minute)
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if st := c[0].Stats(); st.Pending != (Count{}) || st.Dropped[TooOld] != (Count{4, 10}) {
		t.Errorf("%+v", st)
	}
}

// TestBounds: the oldest go, and each destination that had not got them counts them, once.
func TestBounds(t *testing.T) {
	for reason, how := range map[string]struct {
		opt  Options
		pass time.Duration
	}{
		SpoolSize: {Options{MaxSize: 4 * blockLen}, time.Second},
		TooOld:    {Options{MaxAge: 3500 * time.Millisecond}, time.Second},
	} {
		clock := newClock()
		how.opt.Dir, how.opt.Clock = t.TempDir(), clock.now
		s := open(t, how.opt)
		c := attach(t, s, "a", "b", "slow")
		for n := range 10 {
			fill(t, s, 10*n+1, 10*n+10)
			drain(t, c[0])
			if n == 5 { // all of what there is but one
				for range 35 {
					r := take(t, c[1], anything)
					if err := c[1].Done(r); err != nil {
						t.Fatal(err)
					}
				}
			}
			clock.pass(how.pass)
		}
		if st := c[0].Stats(); st.Delivered != (Count{100, 5050}) || len(st.Dropped) != 0 {
			t.Errorf("%s: %+v", reason, st)
		}
		sums := func(st CursorStats) Count {
			d := sumDropped(st)
			return Count{st.Delivered.Profiles + d.Profiles + st.Pending.Profiles, st.Delivered.Samples + d.Samples + st.Pending.Samples}
		}
		for i, want := range []Count{{100, 5050}, {25, 500}, {60, 1830}} {
			st := c[i].Stats()
			if i > 0 && st.Dropped[reason] != want {
				t.Errorf("%s: %d dropped %+v, not %+v", reason, i, st.Dropped, want)
			}
			if sums(st) != (Count{100, 5050}) {
				t.Errorf("%s: %d: %+v", reason, i, st)
			}
		}
		if st := s.Stats(); st.Batches != 4 || st.RemovedSize+st.RemovedAge != 6 || st.Bytes != 4*blockLen {
			t.Errorf("%s: %+v", reason, st)
		}
		if d := cmp.Diff(numbers(61, 100), drain(t, c[2])); d != "" {
			t.Error(d)
		}
	}
}

// TestTakenIsKept: what is being sent is not dropped, so that it is not counted twice.
func TestTakenIsKept(t *testing.T) {
	clock := newClock()
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Clock: clock.now, MaxAge: time.Minute})
	c := attach(t, s, "a")[0]
	fill(t, s, 1, 5)
	take(t, c, anything)
	second := take(t, c, anything)
	clock.pass(time.Hour)
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.Dropped[TooOld] != (Count{3, 12}) || st.Pending != (Count{2, 3}) {
		t.Errorf("%+v", st)
	}
	if err := c.Done(second); err != nil {
		t.Fatal(err)
	}
	s.Close() // the first is still on its way
	s = open(t, Options{Dir: dir, Clock: clock.now, MaxAge: time.Minute})
	c = attach(t, s, "a")[0]
	if st := c.Stats(); st.Dropped[TooOld] != (Count{3, 12}) || st.Delivered != (Count{1, 2}) || st.Pending != (Count{1, 1}) {
		t.Errorf("%+v", st)
	}
	if d := cmp.Diff([]int{1}, drain(t, c)); d != "" {
		t.Error(d)
	}
	if left := files(t, dir, suffix); len(left) != 0 {
		t.Errorf("%q", left)
	}
}

// TestDestinations come, go and come back.
func TestDestinations(t *testing.T) {
	clock := newClock()
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, Clock: clock.now, MaxAge: time.Hour})
	c := attach(t, s, "a", "b")
	fill(t, s, 1, 4)
	for range 2 {
		if err := c[1].Done(take(t, c[1], anything)); err != nil {
			t.Fatal(err)
		}
	}
	clock.pass(10 * time.Minute)
	a := attach(t, s, "a")[0]
	if a != c[0] {
		t.Error("a lost its cursor")
	}
	if r := take(t, c[1], anything); r != nil {
		t.Errorf("b is none, and got %d", r.Profile.PID)
	}
	fill(t, s, 5, 6)
	clock.pass(10 * time.Minute)
	fill(t, s, 7, 8)

	// Back: what it had not got, and what is younger than it takes. A new one: the latter.
	s.Close()
	s = open(t, Options{Dir: dir, Clock: clock.now, MaxAge: time.Hour})
	list, err := s.Attach(Destination{"b", 15 * time.Minute}, Destination{"new", 5 * time.Minute}, Destination{"a", 0})
	if err != nil {
		t.Fatal(err)
	}
	if st := list[0].Stats(); st.Pending.Profiles != 6 || st.Delivered.Profiles != 2 {
		t.Errorf("b: %+v", st)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{5, 6, 7, 8}, drain(t, list[0])); d != "" {
		t.Errorf("b: %s", d)
	}
	if st := list[0].Stats(); st.Dropped[TooOld] != (Count{2, 7}) {
		t.Errorf("b: %+v", st)
	}
	if d := cmp.Diff([]int{7, 8}, drain(t, list[1])); d != "" {
		t.Errorf("new: %s", d)
	}
	if st := list[1].Stats(); len(st.Dropped) != 0 {
		t.Errorf("new: %+v", st)
	}

	// Gone: it holds nothing, and is forgotten with the last that it knew.
	attach(t, s, "b", "new")
	if left := files(t, dir, suffix); len(left) != 0 {
		t.Errorf("%q", left)
	}
	if left := files(t, dir, acksSuffix); len(left) != 2 {
		t.Errorf("%q", left)
	}
	if _, err := s.Attach(Destination{Name: "b"}, Destination{Name: "b"}); err == nil {
		t.Error("b twice")
	}
	if _, err := s.Attach(Destination{}); err == nil {
		t.Error("no name")
	}
}

// TestUnconfigured counts what the others' batches held for one that is no more, but not what came later.
func TestUnconfigured(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	attach(t, s, "a", "b")
	fill(t, s, 1, 4)
	fill(t, s, 5, 5)
	attach(t, s, "a")
	fill(t, s, 6, 7)
	s.Close()
	s = open(t, Options{Dir: dir})
	a := attach(t, s, "a")[0]
	var list []*Record
	for range 7 {
		list = append(list, take(t, a, anything))
	}
	for _, r := range slices.Delete(list, 4, 5) {
		if err := a.Done(r); err != nil {
			t.Fatal(err)
		}
	}
	b := attach(t, s, "b")
	if st := b[0].Stats(); st.Dropped[Unconfigured] != (Count{4, 10}) || st.Pending != (Count{1, 5}) {
		t.Errorf("%+v", st)
	}
}

// TestUnconfiguredWhileSending: what is on its way then is not counted as dropped if it arrives.
func TestUnconfiguredWhileSending(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	c := attach(t, s, "a", "b")
	fill(t, s, 1, 4)
	fill(t, s, 5, 5)
	r, failing := take(t, c[1], anything), take(t, c[1], anything)
	attach(t, s, "a")
	for range 4 {
		if err := c[0].Done(take(t, c[0], anything)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c[1].Done(r); err != nil {
		t.Error(err)
	}
	c[1].Release(failing)
	if again := attach(t, s, "a", "b"); again[1] != c[1] {
		t.Error("b has another cursor")
	}
	if st := c[1].Stats(); st.Dropped[Unconfigured] != (Count{3, 9}) || st.Delivered != (Count{1, 1}) || st.Pending != (Count{1, 5}) {
		t.Errorf("%+v", st)
	}
}

// TestNumbersAreNotUsedAgain, even if files are gone.
func TestNumbersAreNotUsedAgain(t *testing.T) {
	dir := t.TempDir()
	clock := newClock()
	var last uint64
	next := func(what string) {
		t.Helper()
		s := open(t, Options{Dir: dir, Clock: clock.now})
		defer s.Close()
		c := attach(t, s, "a")[0]
		fill(t, s, 1, 3)
		for range 3 {
			r := take(t, c, anything)
			if r == nil || r.Seq <= last {
				t.Fatalf("%s: %+v after %d", what, r, last)
			}
			last = r.Seq
			if err := c.Done(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	next("at first")
	next("at the same time")
	clock.wall = clock.wall.Add(-24 * time.Hour)
	next("the clock was set back")
	clock.pass(25 * time.Hour)
	for _, f := range files(t, dir, "") {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	next("the files are gone")
	s := open(t, Options{Dir: dir, Clock: clock.now})
	c := attach(t, s, "a")[0]
	fill(t, s, 1, 3)
	for _, f := range files(t, dir, "") { // under our feet
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if r := take(t, c, anything); r != nil {
		t.Errorf("%+v", r)
	}
	if st := c.Stats(); st.Dropped[Corrupt] != (Count{3, 6}) {
		t.Errorf("%+v", st)
	}
	fill(t, s, 4, 5)
	if d := cmp.Diff([]int{4, 5}, drain(t, c)); d != "" {
		t.Error(d)
	}
}

// TestOpenRefuses what is not this program's alone.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another pprofd") {
		t.Errorf("two at a time: %v", err)
	}
	s.Close()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("others may write: %v", err)
	}
	if _, err := Open(Options{Dir: dir, MaxSize: -1}); err == nil {
		t.Error("negative")
	}
	if err := s.Append(numbered(1, time.Now(), 1)); err == nil {
		t.Error("appended to what is closed")
	}
	if s.Commit() == nil {
		t.Error("committed to what is closed")
	}
}

// TestForeignFiles are left alone, and leftovers are not.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	attach(t, s, "a")
	fill(t, s, 1, 2)
	s.Close()
	batch := files(t, dir, suffix)[0]
	write(t, filepath.Join(dir, ".pprofd-left"), []byte("half"))
	write(t, filepath.Join(dir, "notes.txt"), []byte("mine"))
	write(t, filepath.Join(dir, "x.spool"), []byte("not ours"))
	write(t, strings.Replace(batch, "-2-", "-1-", 1), read(t, batch)) // a copy, whose name is wrong
	s = open(t, Options{Dir: dir})
	c := attach(t, s, "a")[0]
	if st := s.Stats(); st.Leftovers != 1 || st.RemovedCorrupt != 1 {
		t.Errorf("%+v", st)
	}
	left := files(t, dir, "")
	for _, name := range []string{"notes.txt", "x.spool"} {
		if !slices.Contains(left, filepath.Join(dir, name)) {
			t.Errorf("%s is gone: %q", name, left)
		}
	}
	if len(left) != 4 {
		t.Errorf("%q", left)
	}
	drain(t, c)
}

// TestManyReasons: a destination that invents reasons does not fill memory.
func TestManyReasons(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	c := attach(t, s, "a")[0]
	fill(t, s, 1, 100)
	for n := range 100 {
		if err := c.Drop(take(t, c, anything), strings.Repeat("ä", 30)+string(rune('a'+n))); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, s, 101, 200)
	for n := range 100 {
		if err := c.Drop(take(t, c, anything), string(rune('0'+n))); err != nil {
			t.Fatal(err)
		}
	}
	st := c.Stats()
	if st.Dropped[strings.Repeat("ä", 16)] != (Count{100, 5050}) || len(st.Dropped) > maxReasons+1 || sumDropped(st).Profiles != 200 {
		t.Errorf("%+v", st)
	}
	s.Close()
	s = open(t, Options{Dir: dir})
	if d := cmp.Diff(st.Dropped, attach(t, s, "a")[0].Stats().Dropped); d != "" {
		t.Error(d)
	}
}
