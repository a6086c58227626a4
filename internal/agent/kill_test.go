package agent

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/export/queue"
	"github.com/pprofd/pprofd/internal/agent/config"
)

// victimOrders is a variable of the environment that makes this test program a victim: it delivers windows until it is killed.
const victimOrders = "PPROFD_TEST_VICTIM"

// orders are a victim's.
type orders struct {
	Dir, Config string
	MaxSize     int64 // of the spool
	Origin      time.Time
	Begin       time.Duration // after Origin, by its clock, when it begins
	Speed       int           // of its clock
	First, Last int           // windows: number n is at Origin + n*windowLength
}

const (
	windowLength    = 10 * time.Second
	windowProcesses = 10
)

// beVictim is the victim's main function. It writes what it does, and ends well when its standard input does.
func beVictim(text string) int {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := o.obey(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (o *orders) obey() error {
	s := newServers(slog.New(slog.NewTextHandler(os.Stderr, nil)), "test", prometheus.NewRegistry())
	clock := newTimer(o.Speed)
	s.clock, s.after = func() (time.Time, time.Duration) {
		_, mono := clock.read()
		return o.Origin.Add(o.Begin + mono), o.Begin + mono
	}, clock.after
	c, err := config.Parse("test", []byte(o.Config), nil)
	if err != nil {
		return err
	}
	shorten(c, o.Dir, 10*time.Second) // else an answer that comes late would look like a lost one
	c.Spool.MaxSize = o.MaxSize
	if err := s.configure(c); err != nil {
		return err
	}
	for n := o.First; n <= o.Last; n++ {
		at := o.Origin.Add(time.Duration(n) * windowLength)
		for now, _ := s.clock(); at.After(now); now, _ = s.clock() {
			<-s.after(at.Sub(now))
		}
		if err := o.window(s, n, at); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for done := false; !done && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		_, all := s.stats()
		done = true
		for _, st := range all {
			done = done && st.Pending.Profiles == 0
		}
	}
	_, all := s.stats()
	if err := s.close(ctx); err != nil {
		return err
	}
	text, err := json.Marshal(all)
	if err == nil {
		fmt.Printf("end %s\n", text)
	}
	return err
}

func (o *orders) window(s *servers, n int, at time.Time) error {
	list, _ := windowOf(n, windowProcesses, at)
	fmt.Printf("begin %d\n", n)
	for _, p := range list {
		if err := s.take(p); err != nil {
			return err
		}
	}
	if err := s.commit(); err != nil {
		return err
	}
	fmt.Printf("done %d\n", n)
	return nil
}

// windows is what victims wrote of windows.
type windows struct {
	done  map[int]bool // complete
	begun int          // the last one
	end   map[string]queue.Stats
}

// victim is one that runs.
type victim struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   lockedBuffer
	read  sync.WaitGroup
	lines []string
}

func startVictim(t *testing.T, o *orders) *victim {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{cmd: exec.CommandContext(t.Context(), self)}
	v.cmd.Env = append(os.Environ(), victimOrders+"="+string(text))
	v.cmd.Stderr = &v.log
	if v.stdin, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v.read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			v.lines = append(v.lines, lines.Text())
		}
	})
	return v
}

// over waits for the victim's end and takes down what it said.
func (v *victim) over(t *testing.T, w *windows) error {
	t.Helper()
	v.read.Wait()
	err := v.cmd.Wait()
	for _, line := range v.lines {
		what, rest, _ := strings.Cut(line, " ")
		n, _ := strconv.Atoi(rest)
		switch what {
		case "begin":
			w.begun = n
		case "done":
			w.done[n] = true
		case "end":
			if err := json.Unmarshal([]byte(rest), &w.end); err != nil {
				t.Fatal(err)
			}
		}
	}
	return err
}

func (v *victim) kill(t *testing.T, w *windows) {
	t.Helper()
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := v.over(t, w); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("it was not killed, but ended before: %v\n%s", err, &v.log)
	}
}

// kills is how many are killed during the outage: PPROFD_KILLS, or 20. make test-kill asks for 200.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("PPROFD_KILLS")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("PPROFD_KILLS=%q", text)
	}
	return n
}

// TestKill: the program is killed at random moments of an outage of ten minutes, and while it makes up for it. Each sample of each
// window that was complete arrives, and what comes twice is at most one profile for each kill.
func TestKill(t *testing.T) {
	for name := range receivers(t, fastNow) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testKill(t, name, 0)
		})
	}
}

// TestKillWithLittleRoom: the same with a spool that is too small for the outage. What is missing was counted.
func TestKillWithLittleRoom(t *testing.T) {
	t.Parallel()
	testKill(t, "pyroscope", 1<<17) // 32 windows, of a block each
}

func testKill(t *testing.T, name string, maxSize int64) {
	const outage = 10 * time.Minute
	n := kills(t)
	h := &hunt{
		orders: orders{
			Dir: filepath.Join(t.TempDir(), "spool"), Origin: time.Now(), MaxSize: cmp.Or(maxSize, 64<<20), Last: math.MaxInt,
			Speed: max(2, int(outage/time.Duration(n)/(1500*time.Millisecond))), // few victims live for longer
		},
		w: windows{done: make(map[int]bool), begun: -1},
	}
	r := receivers(t, h.clock)[name]
	h.Config = strings.TrimSuffix(r.section(), "}") + ", parallel: 1}" // so that one at most comes twice for each kill
	for range n {
		h.kill(t, outage/time.Duration(n))
	}
	r.listen(t)
	sending := n / 2 // nobody else has sent anything
	for range sending {
		h.kill(t, time.Second)
	}
	h.First, h.Last = h.w.begun+1, h.w.begun+3
	v := startVictim(t, &h.orders)
	v.stdin.Close()
	if err := v.over(t, &h.w); err != nil {
		t.Fatalf("%v\n%s", err, &v.log)
	}
	h.w.arrived(r, h.unsure)
	t.Logf("%d kills, %d of them within a window; %d windows in %v", h.killed, len(h.unsure), len(h.w.done), h.Begin)
	h.w.check(t, r, sending, maxSize > 0)
}

// hunt is a row of victims, whose clock goes on from one to the next.
type hunt struct {
	orders
	w      windows
	unsure []int // windows that were begun, and not said to be done, when one was killed
	killed int

	mu sync.Mutex // for Begin, which receivers read
}

// clock is that of the present victim, about.
func (h *hunt) clock() (time.Time, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Origin.Add(h.Begin), h.Begin
}

// kill lets the next victim live for a random time, of which short ones are more likely: then it begins, or delivers. At least so much
// time passes.
func (h *hunt) kill(t *testing.T, passes time.Duration) {
	t.Helper()
	h.First = h.w.begun + 1
	began := time.Now()
	v := startVictim(t, &h.orders)
	time.Sleep(rand.N(rand.N(time.Second) + 1))
	v.kill(t, &h.w)
	h.killed++
	h.mu.Lock()
	h.Begin += max(passes, time.Duration(h.Speed)*time.Since(began))
	h.mu.Unlock()
	if last := h.w.begun; last >= 0 && !h.w.done[last] {
		h.unsure = append(h.unsure, last)
		h.w.done[last] = h.kept(t, last)
	}
}

// kept says whether the spool has the window, by the sum in the name of its file.
func (o *orders) kept(t *testing.T, n int) bool {
	t.Helper()
	_, total := windowOf(n, windowProcesses, time.Time{})
	list, err := filepath.Glob(filepath.Join(o.Dir, fmt.Sprintf("*-%d-%d.spool", windowProcesses, total)))
	if err != nil {
		t.Fatal(err)
	}
	return len(list) > 0
}

// arrived: a window of which it is not known that it was complete was, if one of its profiles came.
func (w *windows) arrived(r receiver, unsure []int) {
	sums, _ := r.got()
	for _, n := range unsure {
		first := int64(1 + n*windowProcesses)
		for _, s := range sums {
			w.done[n] = w.done[n] || s >= first && s < first+windowProcesses
		}
	}
}

// check compares what is complete with what arrived, and with what was dropped.
func (w *windows) check(t *testing.T, r receiver, kills int, drops bool) {
	t.Helper()
	var want, got, dropped int64
	for n, done := range w.done {
		if !done {
			continue
		}
		_, total := windowOf(n, windowProcesses, time.Time{})
		want += total
	}
	sums, _ := r.got()
	for _, s := range sums {
		got += s
	}
	st := w.end["server"]
	for _, c := range st.Dropped {
		dropped += c.Samples
	}
	if got+dropped != want || st.Delivered.Samples != got || st.Pending.Profiles != 0 || (dropped > 0) != drops {
		t.Errorf("%d samples are there, %d dropped, of %d in %d windows; %+v", got, dropped, want, len(w.done), st)
	}
	if n := twice(r); n > kills {
		t.Errorf("%d came twice, after %d kills while profiles were sent", n, kills)
	} else {
		t.Logf("%d came twice; %+v", n, st)
	}
	if len(w.done) < 50 {
		t.Errorf("%d windows only", len(w.done))
	}
}
