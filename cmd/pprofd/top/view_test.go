package top

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"

	"github.com/pprofd/pprofd/internal/goruntime"
	"github.com/pprofd/pprofd/profiler"
)

func snapshot() *Snapshot {
	at := time.Date(2026, 11, 23, 10, 11, 12, 0, time.UTC)
	s := &Snapshot{
		At: at, Watched: 63 * time.Second, PID: 4242, Comm: "a\x1b[2Jpi", GoVersion: "go1.26.8", Age: 3 * time.Hour,
		Use: Use{User: 1.5, Sys: 0.25, Threads: 9, RSS: 123e6}, GC: 0.123, Sampled: 1.7, Late: 5 * time.Second, Samples: 875, Frequency: 99,
		Cost: Cost{CPU: 0.0123, BPF: 0.0004, RSS: 27e6, Measured: true},
		Runtime: Runtime{
			At: at, Took: 1500 * time.Microsecond, Pause: time.Second,
			States: profiler.GoroutineStates{Total: 12, System: 5, States: []profiler.GoroutineState{
				{State: goruntime.Waiting, Reason: "chan\nreceive", Count: 11}, {State: goruntime.Running, Count: 1},
			}},
			Heap: Heap{GC: goruntime.GC{Live: 50e6, InUse: 60e6, Goal: 100e6, Cycles: 77, Last: at.Add(-2 * time.Second)}, Rated: true, AllocRate: 3e6, GCRate: 0.2, Pauses: 0.001},
			Groups: []Group{
				{Count: 11, State: "waiting", Reason: "chan receive", Min: time.Second, Max: time.Minute, Top: "example.com/some/long/path/pkg.(*Worker).Wait", File: "/x/y/wait.go", Line: 12, Creator: "main.main"},
				{Count: 1, State: "running", Top: "main.main"},
			},
		},
	}
	for i := range 40 {
		s.Funcs = append(s.Funcs, Row{Func: fmt.Sprintf("example.com/module/package.(*类型).函数%02d", i), Flat: 1 / float64(i+1), Cum: 1, FlatAll: time.Second, CumAll: time.Duration(i) * time.Second})
		s.Lines = append(s.Lines, Row{Func: fmt.Sprintf("main.f%02d", i), File: "/a/b\x07/main.go", Line: i + 1, Flat: 1 / float64(i+1)})
	}
	return s
}

// TestNoScreenIsTooSmall: each view fills any screen and no more of it, with text that cannot steer it.
func TestNoScreenIsTooSmall(t *testing.T) {
	s := snapshot()
	for _, v := range []View{{}, {Cum: true, Paused: true}, {ByLine: true, Offset: 100}, {Goroutines: true}, {Help: true}} {
		for width := range 130 {
			for height := 1; height < 60; height += 3 {
				lines := v.Lines(s, width, height)
				if len(lines) != height {
					t.Fatalf("%+v: %d lines on a screen of %d", v, len(lines), height)
				}
				for _, l := range lines {
					if text := l.String(); columns(text) > width || strings.ContainsAny(text, "\x1b\n\x07") {
						t.Fatalf("%+v, %d columns: %q", v, width, text)
					}
				}
			}
		}
	}
}

func text(v *View, s *Snapshot, width, height int) string {
	var all []string
	for _, l := range v.Lines(s, width, height) {
		all = append(all, l.String())
	}
	return strings.Join(all, "\n")
}

func TestHeadSays(t *testing.T) {
	got := text(&View{}, snapshot(), 200, 24)
	for _, want := range []string{
		` pprofd top  a\x1b[2Jpi (4242)  go1.26.8  up 3h00m  watched 1m03s  10:11:12`,
		"CPU 175.0%  user 150.0%  sys 25.0%  GC 12.3%  9 threads  RSS 123 MB",
		"heap 50.0 MB live of 60.0 MB in use, next GC at 100 MB, allocates 3.0 MB/s; 77 GCs, 0.2/s, last 2s ago, stops 0.10%",
		`goroutines 12: 11 chan\nreceive, 1 running; the runtime's own 5`,
		"cost: pprofd 1.23% CPU, BPF 0.04%, 27.0 MB, goroutines 1.5ms each 1s, 875 samples in 5s at 99 Hz",
		" 100.0%  100.0%    1.00s    0.00s  example.com/module/package.(*类型).函数00",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q:\n%s", want, got)
		}
	}
	narrow := text(&View{}, snapshot(), 80, 24)
	for _, want := range []string{
		"\nheap 50.0 MB live of 60.0 MB in use, next GC at 100 MB, allocates 3.0 MB/s\n77 GCs, 0.2/s, last 2s ago, stops 0.10%\ngoroutines ",
		"\ncost: pprofd 1.23% CPU, BPF 0.04%, 27.0 MB, goroutines 1.5ms each 1s\n", // samples would not fit
	} {
		if !strings.Contains(narrow, want) {
			t.Errorf("there is no %q:\n%s", want, narrow)
		}
	}
	once := snapshot()
	once.Runtime.Heap.Rated, once.Runtime.Heap.AllocRate = false, 0
	if got := text(&View{}, once, 200, 24); !strings.Contains(got, "100 MB; 77 GCs, last 2s ago\n") {
		t.Errorf("rates that are not known:\n%s", got)
	}
	s := snapshot()
	s.Lost, s.Runtime.Heap.Goal, s.Runtime.Heap.Limit = 3, 0, 2e9
	if got := text(&View{}, s, 200, 24); !strings.Contains(got, ", 3 lost") || !strings.Contains(got, "next GC at never (limit 2.0 GB)") {
		t.Error(got)
	}
	s.Runtime.Heap.Err, s.Cost.Measured = errors.New("no such\nthing"), false
	if got := text(&View{}, s, 200, 24); !strings.Contains(got, "heap: no such thing\n") || !strings.Contains(got, "cost: measuring") {
		t.Error(got)
	}
	s.Runtime.Err = errors.New("not\nknown")
	if got := text(&View{}, s, 200, 24); !strings.Contains(got, "goroutines: not known\n") {
		t.Error(got)
	}
	s.Runtime = Runtime{}
	if got := text(&View{}, s, 200, 24); !strings.Contains(got, "heap: reading\ngoroutines: reading\n") {
		t.Error(got)
	}
}

func TestTables(t *testing.T) {
	s := snapshot()
	for _, c := range []struct {
		view  View
		width int
		want  string
	}{
		{View{Cum: true}, 80, "\n   2.5%  100.0%    1.00s   39.00s  example.com/module/package.(*类型).函数39\n"},
		{View{ByLine: true, Offset: 39}, 80, "\n   2.5%    0.0%    0.00s    0.00s  main.f39  main.go:40\n"},
		{View{Goroutines: true}, 100, "\n     11 chan receive            ≥1m00s  …/some/long/path/pkg.(*Worker).Wait wait.go:12 < main.main\n"},
		{View{Goroutines: true}, 80, "\n    11 chan receive         ≥1m00s  …/path/pkg.(*Worker).Wait:12 < main.main\n"},
		{View{Goroutines: true}, 40, "\n    11 chan receive   …(*Worker).Wait:12\n"},
		{View{Goroutines: true}, 60, "\n     1 running        main.main\n"},
	} {
		if got := text(&c.view, s, c.width, 60); !strings.Contains(got, c.want) {
			t.Errorf("there is no %q:\n%s", c.want, got)
		}
	}
	if got := text(&View{}, s, 200, 0); strings.Count(got, "函数") != 40 || strings.Contains(got, "q quit") {
		t.Errorf("all rows:\n%s", got)
	}
	s.Runtime.Groups = nil
	if got := text(&View{Goroutines: true}, s, 80, 24); !strings.Contains(got, "not read yet") {
		t.Error(got)
	}
}

func TestKeys(t *testing.T) {
	str := func(s string) *tcell.EventKey { return tcell.NewEventKey(tcell.KeyRune, s, tcell.ModNone) }
	key := func(k tcell.Key) *tcell.EventKey { return tcell.NewEventKey(k, "", tcell.ModNone) }
	for name, c := range map[string]struct {
		from View
		keys []*tcell.EventKey
		want View
		last action
	}{
		"cum":                   {View{Offset: 3}, []*tcell.EventKey{str("c")}, View{Cum: true}, redraw},
		"flat":                  {View{Cum: true}, []*tcell.EventKey{str("f")}, View{}, redraw},
		"lines":                 {View{Goroutines: true}, []*tcell.EventKey{str("l")}, View{ByLine: true}, redraw},
		"goroutines":            {View{}, []*tcell.EventKey{str("g")}, View{Goroutines: true}, redraw},
		"back":                  {View{Goroutines: true}, []*tcell.EventKey{key(tcell.KeyEsc)}, View{}, redraw},
		"pause":                 {View{}, []*tcell.EventKey{str(" ")}, View{Paused: true}, redraw},
		"go on":                 {View{Paused: true}, []*tcell.EventKey{str("p")}, View{}, redraw},
		"down, up, up":          {View{}, []*tcell.EventKey{key(tcell.KeyDown), str("k"), key(tcell.KeyUp)}, View{}, redraw},
		"a page":                {View{}, []*tcell.EventKey{key(tcell.KeyPgDn), str("j")}, View{Offset: 15}, redraw},
		"the end, and a page":   {View{}, []*tcell.EventKey{key(tcell.KeyEnd), key(tcell.KeyPgUp)}, View{Offset: maxRows - 14}, redraw},
		"the beginning":         {View{Offset: 9}, []*tcell.EventKey{key(tcell.KeyHome)}, View{}, redraw},
		"help":                  {View{}, []*tcell.EventKey{str("?")}, View{Help: true}, redraw},
		"help ends":             {View{Help: true}, []*tcell.EventKey{str("c")}, View{}, redraw},
		"help ends with q":      {View{Help: true}, []*tcell.EventKey{str("q")}, View{}, quit},
		"q":                     {View{}, []*tcell.EventKey{str("q")}, View{}, quit},
		"Ctrl-C":                {View{Paused: true}, []*tcell.EventKey{key(tcell.KeyCtrlC)}, View{Paused: true}, quit},
		"Ctrl-Z":                {View{}, []*tcell.EventKey{key(tcell.KeyCtrlZ)}, View{}, suspend},
		"a key without meaning": {View{}, []*tcell.EventKey{str("x")}, View{}, nothing},
	} {
		v, did := c.from, nothing
		for _, k := range c.keys {
			did = v.key(k, 24)
		}
		if v != c.want || did != c.last {
			t.Errorf("%s: %+v, %d; want %+v, %d", name, v, did, c.want, c.last)
		}
	}
}

// TestWhereabouts: what a goroutine waits for is known; it is to be seen who waits.
func TestWhereabouts(t *testing.T) {
	for _, c := range []struct {
		stack []string
		want  int
	}{
		{nil, -1},
		{[]string{"main.main"}, 0},
		{[]string{"internal/poll.runtime_pollWait", "internal/poll.(*FD).Read", "net.(*conn).Read", "bufio.(*Reader).Peek", "net/http.(*persistConn).readLoop"}, 4},
		{[]string{"sync.runtime_notifyListWait", "sync.(*Cond).Wait", "example.com/io.(*queue).pop", "main.work"}, 2},
		{[]string{"sync.runtime_Semacquire", "sync.(*WaitGroup).Wait"}, 1},
		{[]string{"os/signal.signal_recv", "os/signal.loop"}, 0},
	} {
		if got := whereabouts(c.stack); got != c.want {
			t.Errorf("%v: %d, want %d", c.stack, got, c.want)
		}
	}
}

// TestGoroutinesThatDoNotFit are left out as a whole.
func TestGoroutinesThatDoNotFit(t *testing.T) {
	r := snapshot().Runtime
	for _, state := range []string{"select", "IO wait", "sync.Mutex.Lock"} {
		r.States.States = append(r.States.States, profiler.GoroutineState{State: goruntime.Waiting, Reason: state, Count: 7})
	}
	for width, want := range map[int]string{
		1000: `goroutines 12: 11 chan\nreceive, 1 running, 7 select, 7 IO wait, 7 sync.Mutex.Lock; the runtime's own 5`,
		80:   `goroutines 12: 11 chan\nreceive, 1 running, 7 select, 7 IO wait, …`,
		10:   `goroutines 12: 11 chan\nreceive, …`,
	} {
		if got := goroutinesText(&r, width); got != want {
			t.Errorf("%d columns: %q, want %q", width, got, want)
		}
	}
}
