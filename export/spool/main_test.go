package spool

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// testClock is moved by hand.
type testClock struct {
	wall time.Time
	mono time.Duration
}

func newClock() *testClock { return &testClock{wall: time.Unix(1_800_000_000, 0)} }

func (c *testClock) now() (time.Time, time.Duration) { return c.wall, c.mono }

func (c *testClock) pass(d time.Duration) { c.wall, c.mono = c.wall.Add(d), c.mono+d }

// numbered makes a profile that is told from others by its PID, and has as many samples.
func numbered(n int, at time.Time, samples int64) *export.Profile {
	body := []byte(fmt.Sprintf("%032d", n))
	return &export.Profile{
		Kind: "cpu", PID: n, StartTicks: uint64(n) << 32, Comm: "server", Service: "api",
		Labels: []export.Label{{Name: "instance", Value: fmt.Sprint("host/", n)}, {Name: "node", Value: "n1"}},
		Start:  at, Duration: 10 * time.Second,
		Encoded: &export.Encoded{Gzip: body, Raw: 100 + n, Samples: n, Depth: 3, Labels: n%2 == 0, Total: samples},
	}
}

func open(t testing.TB, o Options) *Spool {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func attach(t testing.TB, s *Spool, names ...string) []*Cursor {
	t.Helper()
	var list []Destination
	for _, n := range names {
		list = append(list, Destination{Name: n})
	}
	c, err := s.Attach(list...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill commits a batch of profiles with the numbers from to to.
func fill(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	wall, _ := s.opt.Clock()
	for n := from; n <= to; n++ {
		if err := s.Append(numbered(n, wall, int64(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
}

var (
	anything = Lane{Than: 1 << 62}
	backlog  = Lane{Than: 30 * time.Second, Older: true}
	fresh    = Lane{Than: 30 * time.Second}
)

func take(t testing.TB, c *Cursor, l Lane) *Record {
	t.Helper()
	r, err := c.Take(l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// drain delivers all there is, and returns the numbers.
func drain(t testing.TB, c *Cursor) (list []int) {
	t.Helper()
	for r := take(t, c, anything); r != nil; r = take(t, c, anything) {
		list = append(list, r.Profile.PID)
		if err := c.Done(r); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// numbers lists from to to.
func numbers(from, to int) (list []int) {
	for n := from; n <= to; n++ {
		list = append(list, n)
	}
	return list
}

// files lists what is in dir, by the end of the names.
func files(t testing.TB, dir, end string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), end) {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// copyDir is what a kill leaves: all that was written.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.Chmod(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range files(t, from, "") {
		write(t, filepath.Join(to, filepath.Base(f)), read(t, f))
	}
	return to
}

// sumDropped is the sum of all reasons.
func sumDropped(st CursorStats) (sum Count) {
	for _, n := range slices.Collect(maps.Values(st.Dropped)) {
		sum.Profiles += n.Profiles
		sum.Samples += n.Samples
	}
	return sum
}
