package spool

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// gotByA is what the destination a of the spool of partly has got; 4 was dropped for it.
var gotByA = []int{2, 5, 6}

// partly makes a spool of three batches with the profiles 1-3, 4-7 and 8-10, of which the destination b has got nothing.
func partly(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, Options{Dir: dir})
	a := attach(t, s, "a", "b")[0]
	fill(t, s, 1, 3)
	fill(t, s, 4, 7)
	fill(t, s, 8, 10)
	for n := 1; n <= 6; n++ {
		r := take(t, a, anything)
		var err error
		switch {
		case slices.Contains(gotByA, n):
			err = a.Done(r)
		case n == 4:
			err = a.Drop(r, "invalid")
		}
		if err != nil || r.Profile.PID != n {
			t.Fatalf("%d: %+v, %v", n, r, err)
		}
		if n == 3 { // the next is in a new file, and the rest is appended
			a.file.base = -maxAcks * ackLen
		}
	}
	s.Close()
	return dir
}

// outcome is what comes of a spool when all is delivered that can be.
type outcome struct {
	sent         [2][]int
	sums         [2]Count // delivered and dropped
	dropped      [2]map[string]Count
	left         int
	removed, bad int64
	badAcks      int64
}

func outcomeOf(t *testing.T, dir string) (o outcome) {
	t.Helper()
	s := open(t, Options{Dir: dir})
	defer s.Close()
	for i, c := range attach(t, s, "a", "b") {
		o.sent[i] = drain(t, c)
		st := c.Stats()
		d := sumDropped(st)
		o.sums[i] = Count{st.Delivered.Profiles + d.Profiles, st.Delivered.Samples + d.Samples}
		o.dropped[i] = st.Dropped
	}
	st := s.Stats()
	o.removed, o.bad, o.badAcks = st.RemovedCorrupt, st.BadProfiles, st.BadAcks
	o.left = len(files(t, dir, suffix))
	return o
}

// TestCorruptBatch: a wrong byte costs a profile, or, in the header, the rest of the batch, and each destination counts exactly that.
func TestCorruptBatch(t *testing.T) {
	t.Parallel()
	dir := partly(t)
	name := filepath.Base(files(t, dir, suffix)[1])
	good := read(t, filepath.Join(dir, name))
	all := Count{10, 55}
	b, err := parsePreamble(good)
	if err != nil {
		t.Fatal(err)
	}
	profileAt := func(at int) int { return 4 + (at-int(b.bodies()))/32 }
	check := func(what string, body []byte, header bool, lost ...int) {
		dir := copyDir(t, dir)
		defer os.RemoveAll(dir)
		write(t, filepath.Join(dir, name), body)
		o := outcomeOf(t, dir)
		want := outcome{sums: [2]Count{all, all}, dropped: [2]map[string]Count{{"invalid": {1, 4}}, {}}}
		for i, got := range [][]int{append([]int{4}, gotByA...), nil} {
			var n Count
			for p := 1; p <= 10; p++ {
				switch {
				case slices.Contains(got, p):
				case slices.Contains(lost, p):
					n = Count{n.Profiles + 1, n.Samples + int64(p)}
				default:
					want.sent[i] = append(want.sent[i], p)
				}
			}
			if n != (Count{}) {
				want.dropped[i][Corrupt] = n
			}
		}
		if header {
			want.removed = 1
		} else {
			want.bad = want.dropped[0][Corrupt].Profiles + want.dropped[1][Corrupt].Profiles
		}
		if d := cmp.Diff(want, o, cmp.AllowUnexported(outcome{})); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	check("as it is", good, false)
	for at := range good {
		body := slices.Clone(good)
		body[at] ^= byte(1 + rand.IntN(255))
		if at < int(b.bodies()) {
			check(fmt.Sprint("byte ", at), body, true, 4, 5, 6, 7)
			check(fmt.Sprint(at, " bytes"), good[:at], true, 4, 5, 6, 7)
			continue
		}
		check(fmt.Sprint("byte ", at), body, false, profileAt(at))
		if at%16 == 0 {
			check(fmt.Sprint(at, " bytes"), good[:at], false, numbers(profileAt(at), 7)...)
		}
	}
}

// TestCorruptAcks: a wrong byte costs one acknowledgement at most, and no drop is counted twice or not at all.
func TestCorruptAcks(t *testing.T) {
	t.Parallel()
	dir := partly(t)
	good := read(t, filepath.Join(dir, "a.acks"))
	if len(good) < 8*ackLen {
		t.Fatalf("%d bytes", len(good))
	}
	twice := 0
	check := func(what string, body []byte, bad int64) {
		dir := copyDir(t, dir)
		defer os.RemoveAll(dir)
		write(t, filepath.Join(dir, "a.acks"), body)
		o := outcomeOf(t, dir)
		again := 0
		for _, n := range o.sent[0] {
			if slices.Contains(gotByA, n) {
				again++
			}
		}
		twice += again
		if again > 1 || o.left > 0 || o.badAcks != bad || len(o.sent[0]) != 6+again {
			t.Errorf("%s: %+v", what, o)
		}
		if d := cmp.Diff(map[string]Count{"invalid": {1, 4}}, o.dropped[0]); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	check("as it is", good, 0)
	for at := range good {
		body := slices.Clone(good)
		body[at] ^= byte(1 + rand.IntN(255))
		check(fmt.Sprint("byte ", at), body, 1)
	}
	if twice == 0 {
		t.Error("no acknowledgement was lost: nothing was tested")
	}
	for torn := 1; torn < ackLen; torn += 7 {
		check(fmt.Sprint("torn by ", torn), good[:len(good)-torn], 1)
		check(fmt.Sprint("and more ", torn), append(slices.Clone(good), good[:torn]...), 1)
	}
}

// TestUnreadable: what cannot even be read is lost, and the rest is delivered.
func TestUnreadable(t *testing.T) {
	dir := partly(t)
	batch, acks := files(t, dir, suffix)[1], filepath.Join(dir, "a.acks")
	for _, err := range []error{os.Remove(batch), os.Mkdir(batch, 0o700), os.Remove(acks), os.Symlink("/proc/self", acks)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{Dir: dir})
	for _, c := range attach(t, s, "a", "b") {
		if d := cmp.Diff([]int{1, 2, 3, 8, 9, 10}, drain(t, c)); d != "" {
			t.Error(d)
		}
		if st := c.Stats(); st.Dropped[Corrupt] != (Count{4, 22}) {
			t.Errorf("%+v", st)
		}
	}
	if st := s.Stats(); st.BadAcks != 1 || st.RemovedCorrupt != 1 {
		t.Errorf("%+v", st)
	}
}

// TestCorruptWhileOpen: what becomes unreadable later is counted, too, and the rest goes on.
func TestCorruptWhileOpen(t *testing.T) {
	dir := t.TempDir()
	clock := newClock()
	s := open(t, Options{Dir: dir, Clock: clock.now})
	c := attach(t, s, "a", "b")
	for n := range maxHeaders + 2 { // more than are remembered
		fill(t, s, 10*n+1, 10*n+10)
	}
	taken := take(t, c[1], anything)
	name := files(t, dir, suffix)[0]
	body := read(t, name)
	body[preambleLen] ^= 1
	write(t, name, body)
	for n := range maxHeaders + 1 { // they forget the first
		clock.pass(time.Second)
		if r := take(t, c[1], Lane{Than: 1 << 62, Except: func(seq uint64) bool { return seq < taken.Seq+10*uint64(n+1) }}); r == nil {
			t.Fatal("nothing")
		}
	}
	if d := cmp.Diff(numbers(11, 60), drain(t, c[0])); d != "" {
		t.Error(d)
	}
	if st := c[0].Stats(); st.Dropped[Corrupt] != (Count{10, 55}) {
		t.Errorf("%+v", st)
	}
	if st := c[1].Stats(); st.Dropped[Corrupt] != (Count{9, 54}) { // one is on its way
		t.Errorf("%+v", st)
	}
	if err := c[1].Done(taken); err != nil {
		t.Error(err)
	}
	if got := files(t, dir, suffix); slices.Contains(got, name) || len(got) != maxHeaders+1 {
		t.Errorf("%q", got)
	}
}
