package spool

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// world is a spool with two destinations, of which one fails a lot, and what is true of them outside of it.
type world struct {
	t     *testing.T
	rand  *rand.Rand
	clock *testClock
	opt   Options
	s     *Spool
	c     []*Cursor

	truth
	flying [2]*Record // being sent, not acknowledged
	next   int        // number of a profile
	killIn int        // steps on disk
	image  string     // of the disk when it was killed
	at     truth      // then
}

// truth is what a kill does not undo.
type truth struct {
	committed Count
	got       [2]map[int]int64 // samples, by number
	twice     [2]int           // profiles that were sent again
	unsure    [2]int           // kills while something was being sent
	batch     Count            // being committed
}

func (tr truth) copy() truth {
	for i := range tr.got {
		tr.got[i] = maps.Clone(tr.got[i])
	}
	return tr
}

func (w *world) open() {
	w.t.Helper()
	s, err := Open(w.opt)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s, w.c = s, attach(w.t, s, "good", "bad")
	w.flying = [2]*Record{}
}

// step is called between changes on disk.
func (w *world) step() {
	if w.killIn--; w.killIn != 0 || w.image != "" {
		return
	}
	w.image = copyDir(w.t, w.opt.Dir)
	w.at = w.copy()
	for i, r := range w.flying {
		if r != nil {
			w.at.unsure[i]++
		}
	}
	for _, f := range files(w.t, w.image, "") { // in the middle of a write
		b := read(w.t, f)
		switch {
		case filepath.Ext(f) == acksSuffix && w.rand.IntN(2) == 0:
			write(w.t, f, append(b, b[:w.rand.IntN(min(ackLen, len(b)+1))]...))
		case filepath.Ext(f) != acksSuffix && filepath.Ext(f) != suffix:
			write(w.t, f, b[:w.rand.IntN(len(b)+1)])
		}
	}
}

// revive goes on with what the kill left.
func (w *world) revive() {
	w.s.Close()
	before := w.at.batch
	dir := w.opt.Dir
	w.truth, w.opt.Dir, w.image = w.at, w.image, ""
	os.RemoveAll(dir)
	w.open()
	if before != (Count{}) { // on disk or not, but not in part
		st := w.c[0].Stats()
		d := sumDropped(st)
		all := Count{st.Delivered.Profiles + d.Profiles + st.Pending.Profiles, st.Delivered.Samples + d.Samples + st.Pending.Samples}
		if all != w.committed {
			w.committed.Profiles += before.Profiles
			w.committed.Samples += before.Samples
		}
	}
	w.batch = Count{}
	w.check()
	w.clock.pass(time.Duration(w.rand.IntN(20)) * time.Second)
}

// check: for each destination, delivered, dropped and pending are all there is.
func (w *world) check() {
	w.t.Helper()
	for i, c := range w.c {
		st := c.Stats()
		d := sumDropped(st)
		all := Count{st.Delivered.Profiles + d.Profiles + st.Pending.Profiles, st.Delivered.Samples + d.Samples + st.Pending.Samples}
		if all != w.committed {
			w.t.Fatalf("destination %d: %+v are %+v, not %+v", i, st, all, w.committed)
		}
	}
}

func (w *world) commit() {
	wall, _ := w.clock.now()
	for range 1 + w.rand.IntN(8) {
		w.next++
		samples := int64(w.rand.IntN(100))
		if err := w.s.Append(numbered(w.next, wall, samples)); err != nil {
			w.t.Fatal(err)
		}
		w.batch.Profiles++
		w.batch.Samples += samples
	}
	if err := w.s.Commit(); err != nil {
		w.t.Fatal(err)
	}
	w.committed.Profiles += w.batch.Profiles
	w.committed.Samples += w.batch.Samples
	w.batch = Count{}
}

// send sends one profile to destination i.
func (w *world) send(i int, l Lane) bool {
	r := take(w.t, w.c[i], l)
	if r == nil {
		return false
	}
	n := r.Profile.PID
	var err error
	switch what := w.rand.IntN(10); {
	case i == 1 && what < 3:
		w.c[i].Release(r)
	case i == 1 && what < 5:
		err = w.c[i].Drop(r, fmt.Sprint("http_", 400+w.rand.IntN(4)))
	default:
		if _, ok := w.got[i][n]; ok {
			w.twice[i]++
		}
		w.got[i][n] = r.Profile.Encoded.Total
		w.flying[i] = r
		w.step()
		err = w.c[i].Done(r)
		w.flying[i] = nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return true
}

func (w *world) act() {
	switch w.rand.IntN(9) {
	case 0, 1:
		w.commit()
	case 8:
		w.c[w.rand.IntN(2)].file.base = -maxAcks * ackLen // the next one makes a new file
	case 2:
		w.clock.pass(time.Duration(w.rand.IntN(15)) * time.Second)
	case 3, 4, 5:
		w.send(0, anything)
	case 6:
		w.send(1, fresh)
	case 7:
		w.send(1, backlog)
	}
}

// end delivers the rest.
func (w *world) end() {
	for i, c := range w.c {
		for w.send(i, anything) {
		}
		st := c.Stats()
		var got Count
		for _, samples := range w.got[i] {
			got.Profiles++
			got.Samples += samples
		}
		lost := sumDropped(st)
		// A profile whose acknowledgement was lost may have been dropped later: it is then in both.
		over := got.Profiles + lost.Profiles - w.committed.Profiles
		if over < 0 || over > int64(w.unsure[i]-w.twice[i]) || over == 0 && got.Samples+lost.Samples != w.committed.Samples || st.Pending.Profiles != 0 {
			w.t.Errorf("destination %d: got %+v, dropped %+v, of %+v; %d kills while sending", i, got, st.Dropped, w.committed, w.unsure[i])
		}
		if w.twice[i] > w.unsure[i] {
			w.t.Errorf("destination %d: %d sent twice, by %d kills while sending", i, w.twice[i], w.unsure[i])
		}
	}
	if left := files(w.t, w.opt.Dir, suffix); len(left) > 0 {
		w.t.Errorf("%q", left)
	}
	if err := w.s.Close(); err != nil {
		w.t.Error(err)
	}
}

// TestKills: whenever it is killed, at most what was being sent is sent again, and nothing is lost that is not counted.
func TestKills(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), clock: newClock()}
			w.opt = Options{Dir: t.TempDir(), Clock: w.clock.now, step: w.step, MaxAge: 2 * time.Minute, MaxSize: 20 * blockLen}
			w.got = [2]map[int]int64{{}, {}}
			w.open()
			defer func() { w.s.Close() }()
			for range 25 {
				w.killIn = 1 + w.rand.IntN(60)
				for w.image == "" {
					w.act()
				}
				w.revive()
			}
			w.killIn = 0
			w.check()
			w.end()
			if w.unsure[0]+w.unsure[1] == 0 || w.twice[0]+w.twice[1] == 0 || len(w.c[1].Stats().Dropped) < 5 {
				t.Errorf("too little happened: %+v, %+v", w.unsure, w.c[1].Stats())
			}
		})
	}
}
