// Command shares has goroutines that share their time in a known way: 30 % of it they wait for a channel, 50 % for a mutex, and for 20 %
// they compute. Each does so in a rhythm of its own: one a multiple of which is 1/19 s, a fast one, one at random, a slow one.
//
// It prints "ready", then for each line of its standard input "mark", the line, and a JSON object: what its goroutines have spent so far,
// in nanoseconds. With -dir it writes its own block and mutex profiles there, beside each mark. Built with the tag fgprof it prints
// "addr HOST:PORT" first, and serves fgprof there.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"targets/internal/cpuclock"
)

// Phases of a cycle.
const (
	receiving = iota
	locking
	computing
	phases
)

var names = [phases]string{"receive", "lock", "compute"}

// worker is one that waits; its partner has it wait.
type worker struct {
	cycle func() time.Duration
	spent [phases]int64 // ns
	cpu   int64         // ns, of computing
	now   int64         // the phase it is in and since when: ns*phases + phase
	c     chan bool
	mu    sync.Mutex
	done  chan bool
}

func main() {
	idle := flag.Int("idle", 0, "so many further goroutines, that wait for nothing")
	scale := flag.Float64("scale", 1, "share of the time to compute in, of 20 %")
	rate := flag.Int("rate", 0, "argument of SetBlockProfileRate and SetMutexProfileFraction")
	dir := flag.String("dir", "", "write block and mutex profiles here with each mark")
	life := flag.Duration("life", 5*time.Minute, "how long to live when nobody can ask any more")
	flag.Parse()
	runtime.SetBlockProfileRate(*rate)
	runtime.SetMutexProfileFraction(*rate)
	rhythms := []func() time.Duration{
		func() time.Duration { return time.Second / 19 },
		func() time.Duration { return 11 * time.Millisecond },
		func() time.Duration {
			return 5*time.Millisecond + time.Duration(rand.Int63n(int64(200*time.Millisecond)))
		},
		func() time.Duration { return 330 * time.Millisecond },
	}
	var all []*worker
	for _, cycle := range rhythms {
		w := &worker{cycle: cycle, c: make(chan bool), done: make(chan bool, 1), now: time.Now().UnixNano() * phases}
		all = append(all, w)
		spans := make(chan [phases]time.Duration, 1)
		go w.partner(spans, *scale)
		go w.run(spans)
	}
	never := make(chan bool)
	for i := 0; i < *idle; i++ {
		go rest(never)
	}
	for _, start := range more {
		start()
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if *dir != "" {
			write(*dir, in.Text())
		}
		mark(in.Text(), all)
	}
	time.Sleep(*life)
}

// more of what it does, which not every way to build it has.
var more []func()

//go:noinline
func rest(never chan bool) { <-never }

// mark tells what has been spent so far.
func mark(name string, all []*worker) {
	out := map[string]int64{}
	for _, w := range all {
		now := atomic.LoadInt64(&w.now)
		for i := range w.spent {
			out[names[i]] += atomic.LoadInt64(&w.spent[i])
		}
		out[names[now%phases]] += time.Now().UnixNano() - now/phases
		out["cpu"] += atomic.LoadInt64(&w.cpu)
	}
	line, err := json.Marshal(out)
	check(err)
	fmt.Printf("mark %s %s\n", name, line)
}

func write(dir, name string) {
	for _, kind := range []string{"block", "mutex"} {
		f, err := os.Create(filepath.Join(dir, name+"."+kind))
		check(err)
		check(pprof.Lookup(kind).WriteTo(f, 0))
		check(f.Close())
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// partner makes its worker wait as long as it should.
func (w *worker) partner(spans chan [phases]time.Duration, scale float64) {
	for {
		d := w.cycle()
		spans <- [phases]time.Duration{d * 3 / 10, d / 2, time.Duration(float64(d) * scale / 5)}
		time.Sleep(d * 3 / 10)
		w.mu.Lock()
		w.c <- true
		time.Sleep(d / 2)
		w.mu.Unlock()
		<-w.done
	}
}

// run goes through the phases.
func (w *worker) run(spans chan [phases]time.Duration) {
	for span := range spans {
		w.enter(receiving)
		w.receive()
		w.enter(locking)
		w.lock()
		w.enter(computing)
		w.compute(span[computing])
		w.enter(receiving)
		w.done <- true
	}
}

// enter ends one phase and begins another.
func (w *worker) enter(phase int64) {
	now, was := time.Now().UnixNano(), w.now
	atomic.StoreInt64(&w.now, now*phases+phase)
	atomic.AddInt64(&w.spent[was%phases], now-was/phases)
}

//go:noinline
func (w *worker) receive() { <-w.c }

//go:noinline
func (w *worker) lock() {
	w.mu.Lock()
	w.mu.Unlock()
}

//go:noinline
func (w *worker) compute(d time.Duration) {
	runtime.LockOSThread()
	before := cpuclock.Thread()
	n := uint64(0)
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i := uint64(0); i < 10000; i++ {
			n = n*6364136223846793005 + i
		}
	}
	atomic.AddUint64(&sink, n)
	atomic.AddInt64(&w.cpu, int64(cpuclock.Thread()-before))
	runtime.UnlockOSThread()
}

var sink uint64
