// Command alloc allocates a known number of bytes at known places. Nothing in it reads the runtime's memory profile, so that
// it is linked without.
//
// It prints "ready", and on SIGUSR1 allocates and prints "allocated <bytes of /gc/heap/allocs:bytes> <nanoseconds>", then for
// each place a line "site <function> <objects> <bytes>", then "done", and waits for the next signal. It lives for -life.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// object sizes are those of size classes, so that bytes are what the runtime counts.
type (
	object16   struct{ a, b *byte }
	object48   struct{ p [6]*byte }
	object64   struct{ n [8]int64 }
	object96   struct{ p [12]*byte }
	object128  struct{ n [16]int64 }
	object256  struct{ p [32]*byte }
	object512  struct{ n [64]int64 }
	object1024 struct{ p [128]*byte }
	object2048 struct{ n [256]int64 }
	object8192 struct{ n [1024]int64 }
)

// sink keeps the last object of each worker and place: more than that is garbage.
type sink struct {
	kept [16]interface{}
	live []*object1024
	_    [64]byte
}

//go:noinline
func site16(s *sink) { s.kept[0] = new(object16) }

//go:noinline
func site48(s *sink) { s.kept[1] = new(object48) }

//go:noinline
func site64(s *sink) { s.kept[2] = new(object64) }

//go:noinline
func site96(s *sink) { s.kept[3] = new(object96) }

//go:noinline
func site128(s *sink) { s.kept[4] = new(object128) }

//go:noinline
func site256(s *sink) { s.kept[5] = new(object256) }

//go:noinline
func site512(s *sink) { s.kept[6] = new(object512) }

//go:noinline
func site1024(s *sink) { s.kept[7] = new(object1024) }

//go:noinline
func site2048(s *sink) { s.kept[8] = new(object2048) }

//go:noinline
func site8192(s *sink) { s.kept[9] = new(object8192) }

// Three that allocate the same.
//
//go:noinline
func siteA(s *sink) { s.kept[10] = new(object48) }

//go:noinline
func siteB(s *sink) { s.kept[11] = new(object48) }

//go:noinline
func siteC(s *sink) { s.kept[12] = new(object48) }

//go:noinline
func siteLarge(s *sink) { s.kept[13] = make([]byte, 64<<10) }

//go:noinline
func siteHuge(s *sink) { s.kept[14] = make([]byte, 4<<20) }

//go:noinline
func siteTiny(s *sink) { s.kept[15] = new(uint16) }

type site struct {
	name  string
	bytes uint64 // of an object; 0: unknown
	alloc func(*sink)
}

var small = []site{
	{"site16", 16, site16}, {"site48", 48, site48}, {"site64", 64, site64}, {"site96", 96, site96}, {"site128", 128, site128},
	{"site256", 256, site256}, {"site512", 512, site512}, {"site1024", 1024, site1024}, {"site2048", 2048, site2048},
	{"site8192", 8192, site8192},
}

var (
	siteAs     = site{"siteA", 48, siteA}
	siteBs     = site{"siteB", 48, siteB}
	siteCs     = site{"siteC", 48, siteC}
	largeSites = []site{{"siteLarge", 64 << 10, siteLarge}, {"siteHuge", 4 << 20, siteHuge}}
)

// a plan says which place comes next.
type plan struct {
	sites []site
	next  func(n uint64, r *rand.Rand) int
}

func plans() map[string]plan {
	weighted := func(_ uint64, r *rand.Rand) int { return int(r.ExpFloat64()*2.5) % 10 } // small ones are most frequent
	inTurn := func(of uint64) func(uint64, *rand.Rand) int {
		return func(n uint64, _ *rand.Rand) int { return int(n % of) }
	}
	return map[string]plan{
		"random":    {small, weighted},
		"same":      {[]site{siteAs, siteBs, siteCs}, func(_ uint64, r *rand.Rand) int { return r.Intn(6) / 2 * r.Intn(2) }}, // irregular, one size
		"alternate": {[]site{siteAs, siteBs}, inTurn(2)},
		"three":     {[]site{siteAs, siteBs, siteCs}, inTurn(3)},
		"large":     {largeSites, func(_ uint64, r *rand.Rand) int { return r.Intn(64) / 63 }},
		"tiny":      {[]site{{"siteTiny", 0, siteTiny}}, inTurn(1)},
		"bursts":    {small, func(n uint64, _ *rand.Rand) int { return int(n / 1000 % 10) }},
	}
}

// worker allocates until the budget of all is used up.
type worker struct {
	sink
	objects [16]uint64
	rand    *rand.Rand
	gaps    bool // look at the clock after each object
	last    time.Time
	longest time.Duration // between two objects
	only    int           // the one place that it allocates at; negative: as the plan says
}

// look notes how long it took since the last object.
func (w *worker) look() {
	now := time.Now()
	if d := now.Sub(w.last); !w.last.IsZero() && d > w.longest {
		w.longest = d
	}
	w.last = now
}

const piece = 256 << 10 // bytes between two looks at the budget and the clock

func (w *worker) run(p plan, budget *int64, throttle func(int)) {
	for n := uint64(0); atomic.AddInt64(budget, -piece) >= 0; {
		for done := uint64(0); done < piece; n++ {
			i := w.only
			if i < 0 {
				i = p.next(n, w.rand)
			}
			p.sites[i].alloc(&w.sink)
			w.objects[i]++
			if w.gaps {
				w.look()
			}
			done += p.sites[i].bytes + 1
		}
		throttle(piece)
	}
}

func main() {
	mode := flag.String("mode", "random", "which places in which order")
	mb := flag.Int64("mb", 1000, "how much to allocate, for each signal")
	rate := flag.Float64("rate", 0, "MB a second; 0: as fast as it goes")
	workers := flag.Int("workers", 2, "goroutines")
	live := flag.Int("live", 16, "MB that stay in use")
	gc := flag.Int("gc", 100, "GOGC")
	life := flag.Duration("life", time.Minute, "how long to live")
	gaps := flag.Bool("gaps", false, "print \"longest <nanoseconds>\", the longest time between two objects, after each round")
	labels := flag.Bool("labels", false, "each goroutine allocates at a place of its own, with its number as the pprof label \"worker\"")
	now := flag.Bool("now", false, "allocate without a signal, over and over")
	flag.Parse()
	debug.SetGCPercent(*gc)
	p, ok := plans()[*mode]
	if !ok {
		fmt.Fprintln(os.Stderr, "no mode", *mode)
		os.Exit(2)
	}
	ws := make([]*worker, *workers)
	for i := range ws {
		ws[i] = &worker{rand: rand.New(rand.NewSource(int64(i))), gaps: *gaps, only: -1}
		if *labels {
			ws[i].only = i % len(p.sites)
		}
		for n := 0; n < *live<<10 / *workers; n++ {
			ws[i].live = append(ws[i].live, new(object1024))
		}
	}
	runtime.GC()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	fmt.Println("ready", os.Getpid())
	end := time.After(*life)
	for {
		if !*now {
			select {
			case <-signals:
			case <-end:
				return
			}
		}
		round(p, ws, *mb<<20, *rate)
		select {
		case <-end:
			return
		default:
		}
	}
}

// round allocates so many bytes and tells about it.
func round(p plan, ws []*worker, bytes int64, rate float64) {
	before, start := allocated(), time.Now()
	var wg sync.WaitGroup
	var done int64
	throttle := func(n int) {
		if sum := atomic.AddInt64(&done, int64(n)); rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(sum) / rate / (1 << 20) * 1e9))))
		}
	}
	for i, w := range ws {
		w.objects = [16]uint64{}
		w.last, w.longest = time.Time{}, 0
		wg.Add(1)
		go func(i int, w *worker) {
			defer wg.Done()
			if w.only < 0 {
				w.run(p, &bytes, throttle)
				return
			}
			pprof.Do(context.Background(), pprof.Labels("worker", strconv.Itoa(i)), func(context.Context) { w.run(p, &bytes, throttle) })
		}(i, w)
	}
	wg.Wait()
	took, total := time.Since(start), allocated()-before
	fmt.Println("allocated", total, int64(took))
	for i, s := range p.sites {
		var n uint64
		for _, w := range ws {
			n += w.objects[i]
		}
		fmt.Println("site", "main."+s.name, n, n*s.bytes)
	}
	for _, w := range ws {
		if w.gaps {
			fmt.Println("longest", int64(w.longest))
		}
	}
	fmt.Println("done")
}

// allocated is all that was allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
