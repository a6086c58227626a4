package profiler

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

// unseen is the program pauses, of which snapshots see what a test says: goroutines that stop in one place.
type unseen struct {
	*wallTarget
	stacks map[string][]objfile.Addr // by what is told of them
	start  uint64
	now    time.Time
}

func newUnseen(t *testing.T) *unseen {
	t.Helper()
	g, err := OpenGoroutines(testprog.Start(t, testprog.Build(t, "pauses", testprog.Options{})).PID, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	image := g.space.Main().Image
	table, err := image.File.Pclntab()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"runtime.gopark", "main.(*waiter).run", "main.receive50us", "main.receive1ms", "main.receive200ms"}
	found := table.Lookup(names...)
	at := func(i int, off uint64) objfile.Addr {
		return objfile.Addr{Image: image.ID, Off: found[names[i]].Entry + off}
	}
	u := &unseen{wallTarget: newWallTarget(NewWall(WallConfig{}), g), start: found[names[1]].Entry + g.bias, now: time.Unix(1, 0)}
	u.began, u.wallProgram.began = u.now, u.now
	u.stacks = map[string][]objfile.Addr{
		"short": {at(0, 1), at(2, 1), at(1, 1)}, "short, another line": {at(0, 1), at(2, 2), at(1, 1)},
		"other": {at(0, 1), at(3, 1), at(1, 1)}, "long": {at(0, 1), at(4, 1), at(1, 1)},
	}
	return u
}

// snapshot finds a goroutine that waits; what: as its stack says, or "" if it goes on before that is read. It takes a second.
func (u *unseen) snapshot(what string, id uint64) {
	s := &stopped{id: id, state: goruntime.Waiting, reason: "chan receive", pc: 1, sp: 100, end: 200, start: u.start, sure: true, looked: &glance{}}
	if what == "" {
		u.known(s)
	} else {
		s.group = u.groups.find(&wallKey{State: s.state, Reason: s.reason, Stack: u.stacks[what], Complete: true})
		u.groups.add(s.group)
		s.group.stops++
		u.whole(s, false)
		if what == "long" {
			u.stays(s)
		}
	}
	u.groups.taken(u.now, u.now)
	u.now = u.now.Add(time.Second)
}

// told are the snapshots of each function, as groups say; "run" is where nothing else is known.
func (u *unseen) told(t *testing.T, groups *wallGroups) map[string]int64 {
	t.Helper()
	all := make(map[string]int64)
	for _, g := range groups.sorted() {
		name := "run"
		if g.Leaf == "" {
			name = u.outermost(g.Stack[1])
		} else if g.Leaf != movedFrame || len(g.Stack) != 1 || u.outermost(g.Stack[0]) != "main.(*waiter).run" {
			t.Errorf("%s on %v", g.Leaf, g.Stack)
		}
		all[name] += g.count
		if off := g.weight - time.Duration(g.count)*time.Second; off.Abs() > time.Second {
			t.Errorf("%s: %d snapshots, %v", name, g.count, g.weight)
		}
	}
	return all
}

// sight is one of a goroutine, so many times.
type sight struct {
	what  string
	id    uint64
	times int
}

// each has goroutines from a number on, once each.
func each(what string, from, to uint64) (list []sight) {
	for id := from; id < to; id++ {
		list = append(list, sight{what, id, 1})
	}
	return list
}

// TestWallUnseen: what went on before its stack was read is told of the function that the same goroutine was seen in, sooner or later, or that all who
// come and go there are in; of no function where these are several, or where it cannot be one of those that were seen.
func TestWallUnseen(t *testing.T) {
	const short, other, long, run = "main.receive50us", "main.receive1ms", "main.receive200ms", "run"
	for name, c := range map[string]struct {
		sights []sight
		want   map[string]int64
	}{
		"seen later":              {[]sight{{"", 1, 5}, {"long", 2, 9}, {"short", 1, 1}, {"", 1, 3}}, map[string]int64{short: 9, long: 9}},
		"never seen":              {slices.Concat([]sight{{"", 1, 5}}, []sight{{"long", 2, 9}, {"long", 3, 9}, {"long", 4, 9}}), map[string]int64{run: 5, long: 27}},
		"once, others wait":       {slices.Concat(each("", 1, 2), each("long", 2, 9)), map[string]int64{run: 1, long: 7}},
		"they come and go":        {slices.Concat(each("short", 1, 9), each("", 11, 31)), map[string]int64{short: 28}},
		"they do various things":  {slices.Concat(each("short", 1, 9), each("", 11, 31), each("other", 40, 41)), map[string]int64{short: 8, other: 1, run: 20}},
		"two come and go":         {slices.Concat(each("short", 1, 3), each("", 11, 14)), map[string]int64{short: 2, run: 3}},
		"few of them":             {slices.Concat(each("short", 1, 4), each("", 11, 40)), map[string]int64{short: 3, run: 29}},
		"one stays":               {slices.Concat(each("short", 1, 9), []sight{{"", 11, 3}}), map[string]int64{short: 8, run: 3}},
		"it does two things":      {[]sight{{"short", 1, 1}, {"", 1, 5}, {"other", 1, 2}}, map[string]int64{short: 1, other: 2, run: 5}},
		"two lines of a function": {[]sight{{"short", 1, 1}, {"", 1, 5}, {"short, another line", 1, 2}}, map[string]int64{short: 8}},
		"it waits long":           {[]sight{{"long", 1, 8}, {"", 1, 5}}, map[string]int64{long: 8, run: 5}},
		"it waited long at times": {[]sight{{"other", 1, 20}, {"", 1, 30}}, map[string]int64{other: 50}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnseen(t)
			for _, s := range c.sights {
				for range s.times {
					u.snapshot(s.what, s.id)
				}
			}
			u.end(u.now)
			if got := u.told(t, &u.groups); !maps.Equal(got, c.want) {
				t.Errorf("told %v, want %v", got, c.want)
			}
		})
	}
}

// TestWallUnseenWaits: that they have ended tells how long the waits are of the function that they are told of, if they are of the same goroutine.
func TestWallUnseenWaits(t *testing.T) {
	for name, c := range map[string]struct {
		sights              []sight
		stops, ended, twice int
	}{
		"its own":  {[]sight{{"", 1, 5}, {"short", 1, 1}}, 6, 5, 1},
		"another":  {slices.Concat(each("short", 1, 9), each("", 11, 16)), 13, 0, 0},
		"nobody's": {[]sight{{"", 1, 5}}, 5, 5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnseen(t)
			for _, s := range c.sights {
				for range s.times {
					u.snapshot(s.what, s.id)
				}
			}
			u.end(u.now)
			g, ended := u.groups.sorted()[0], 0
			if g.once != nil {
				for _, n := range g.once.ended {
					ended += int(n)
				}
			}
			if ended != c.ended || int(g.stops) != c.stops || u.groups.twice != c.twice {
				t.Errorf("%d of %d had ended, %d groups have gaps; want %d of %d, %d", ended, g.stops, u.groups.twice, c.ended, c.stops, c.twice)
			}
		})
	}
}

// TestWallUnseenWindows: a window tells what was known at its end, and the next one knows it still, of goroutines that were asked for; what there is no room
// for is told at once; and nothing is left of it.
func TestWallUnseenWindows(t *testing.T) {
	u := newUnseen(t)
	for i, c := range []struct {
		sights []sight
		want   map[string]int64
	}{
		{[]sight{{"", 1, 2}, {"short", 1, 1}, {"other", 2, 1}}, map[string]int64{"main.receive50us": 3, "main.receive1ms": 1}},
		{[]sight{{"", 1, 2}, {"", 2, 1}}, map[string]int64{"main.receive50us": 2, "run": 1}},
		{nil, map[string]int64{}},
		{[]sight{{"", 1, 2}}, map[string]int64{"run": 2}},
	} {
		u.index++
		for _, s := range c.sights {
			for range s.times {
				u.snapshot(s.what, s.id)
			}
		}
		if got := u.told(t, &u.freeze(u.now).groups); !maps.Equal(got, c.want) {
			t.Errorf("window %d: told %v, want %v", i, got, c.want)
		}
	}
	room := u.groups.room
	room.maxHabits = 8
	sum := int64(0)
	for id := range uint64(100) {
		u.snapshot("", id)
		u.snapshot("short", id)
		if sum += 2; room.habits > room.maxHabits || room.habits != len(u.habits) {
			t.Fatalf("%d habits of %d", room.habits, len(u.habits))
		}
	}
	got := u.told(t, &u.freeze(u.now).groups)
	if got["main.receive50us"] < 180 || got["main.receive50us"]+got["run"] != sum {
		t.Errorf("told %v of %v", got, sum)
	}
	u.leave()
	if room.habits != 0 || room.groups != 0 || len(u.habits) != 0 {
		t.Errorf("left: %+v", room)
	}
	room.maxHabits = 0
	u.snapshot("", 1)
	u.end(u.now)
	if got := u.told(t, &u.groups); got["run"] != 1 || room.habits != 0 {
		t.Errorf("told %v without room", got)
	}
}

// slowly is memory that answers a while after it was read.
type slowly struct{ goruntime.Memory }

func (m slowly) ReadPieces(pieces []objfile.Piece) error {
	err := m.Memory.ReadPieces(pieces)
	sleepUntil(context.Background(), time.Now().Add(time.Millisecond))
	return err
}

// TestWallAlike: functions whose frames look alike, of goroutines that begin alike, have each the time that the program knows of, however short the waits are of some
// of them, which mostly go on before a stack is read: what is not known of those is told as that, and of no other. Stacks are read so late that it is many.
func TestWallAlike(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			p := pauses(t, testprog.Options{Go: version}, "-brief", "10")
			k := &keep{}
			w := NewWall(WallConfig{Frequency: alikeHz, States: []string{"waiting"}, Exporter: k})
			defer w.Close()
			if err := w.Add(p.PID); err != nil {
				t.Fatal(err)
			}
			g := w.targets[0].g
			g.mem = watched{slowly{g.mem.(watched).Memory}, w.reading}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			truth := p.since(t)
			if err := errors.Join(w.Run(ctx), w.Export(t.Context())); err != nil {
				t.Fatal(err)
			}
			checkAlike(t, k.profiles, truth())
		})
	}
	t.Run("windows", func(t *testing.T) {
		needs.Root(t)
		p := pauses(t, testprog.Options{}, "-brief", "10")
		k, proc := &keep{}, processOf(t, p.PID)
		w := NewWalls(WallsConfig{WallConfig: WallConfig{Exporter: k, Frequency: alikeHz}, Window: time.Second, Discovery: everybody{}})
		w.memory = func(_ Process, m goruntime.Memory) goruntime.Memory { return slowly{m} }
		w.Set([]Process{proc})
		end := runWalls(t, w)
		waitFor(t, func() bool { return w.Stats().Snapshots > 0 })
		truth := p.since(t)
		waitFor(t, func() bool { return len(k.of(KindWall, proc)) >= 10 })
		shares := truth()
		end()
		checkAlike(t, k.of(KindWall, proc), shares)
	})
}

// since returns what says for which share of the time goroutines have waited since then, by function, and how often in a second.
func (p *pauser) since(t *testing.T) func() map[string]alike {
	before, began := p.waited(t, "before"), time.Now()
	return func() map[string]alike {
		after, d := p.waited(t, "after"), time.Since(began)
		all := make(map[string]alike)
		for name, now := range after {
			all[name] = alike{time.Duration(now.NS-before[name].NS).Seconds() / d.Seconds(), float64(now.Count-before[name].Count) / d.Seconds()}
		}
		return all
	}
}

// alike is a share of the time, and how many waits there were in a second.
type alike struct{ share, rate float64 }

const alikeHz = 97

// checkAlike compares profiles with the truth, to 4 deviations of so many independent looks.
func checkAlike(t *testing.T, all []*export.Profile, truth map[string]alike) {
	t.Helper()
	seconds := 0.0
	for _, p := range all {
		seconds += p.Duration.Seconds()
	}
	share := func(want func(*profile.Sample) bool) (sum float64) {
		for _, p := range all {
			sum += wallTime(p.Data, want).Seconds() / seconds
		}
		return sum
	}
	if seconds < 9 {
		t.Fatalf("profiles of %.1f seconds", seconds)
	}
	for name, want := range truth {
		got := share(below("main." + name))
		t.Logf("%s: %.3f of the time, in truth %.3f", name, got, want.share)
		late := 150 * time.Microsecond.Seconds() * want.rate // see checkEstimates
		chance := 4 * math.Sqrt(want.share*max(1-want.share, 0.1)/seconds/alikeHz)
		low, high := want.share-late-chance, want.share+chance
		if name == "receive50us" || name == "lock50us" || name == "receiveBriefly" { // who looks has them wait longer
			unknown := share(func(s *profile.Sample) bool {
				return below(movedFrame)(s) && has(s, reasonLabel, "chan receive") == strings.HasPrefix(name, "receive")
			})
			t.Logf("%s: nothing is known of %.3f", name, unknown)
			low, high = low-unknown, high+0.1
		}
		if got < low || got > high {
			t.Errorf("%s: %.3f of the time, want %.3f to %.3f", name, got, low, high)
		}
	}
}
