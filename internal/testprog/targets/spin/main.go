// Command spin saturates threads in proportions that it knows exactly: each goroutine owns a thread and spends
// it in four functions, and the thread's own CPU clock says how long it was in each.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"targets/internal/cpuclock"
)

var sink uint64

//go:noinline
func alpha(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = x*31 + uint64(i)
	}
	return x
}

//go:noinline
func beta(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<7 + uint64(i)
	}
	return x
}

//go:noinline
func gamma(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = x>>3 | x<<61 + uint64(i)
	}
	return x
}

//go:noinline
func delta(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = x&0xffff*x + uint64(i)
	}
	return x
}

// functions with the share of the time that each is given; what it gets is measured.
var functions = []struct {
	name  string
	f     func(int, uint64) uint64
	share time.Duration
}{{"main.alpha", alpha, 4}, {"main.beta", beta, 3}, {"main.gamma", gamma, 2}, {"main.delta", delta, 1}}

func main() {
	threads := flag.Int("threads", 2, "saturated threads")
	seconds := flag.Float64("seconds", 10, "run for this long")
	most := flag.Duration("cpu", 1000*time.Hour, "CPU time that each thread takes at most: on a busy machine that is longer")
	unit := flag.Duration("unit", 5*time.Millisecond, "CPU time of the smallest share at a time")
	flag.Parse()
	runtime.GOMAXPROCS(*threads + 1)
	spent := make([]map[string]time.Duration, *threads)
	var began, end time.Time
	var there, done sync.WaitGroup
	start := make(chan struct{}) // none spins before all are there: thousands would keep main from the CPU
	there.Add(*threads)
	done.Add(*threads)
	for i := range spent {
		go func(i int) {
			defer done.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			<-start
			spent[i] = thread(end, *most, *unit)
		}(i)
	}
	there.Wait()
	fmt.Println("ready", os.Getpid())
	began = time.Now()
	end = began.Add(time.Duration(*seconds * float64(time.Second)))
	close(start)
	done.Wait()
	cpuclock.Print(total(spent), began)
}

// thread spins until end, or until it has used so much, on a thread of its own.
func thread(end time.Time, most, unit time.Duration) map[string]time.Duration {
	spent := map[string]time.Duration{}
	began := cpuclock.Thread()
	for x := uint64(1); time.Now().Before(end) && cpuclock.Thread()-began < most; {
		for _, fn := range functions {
			from := cpuclock.Thread()
			now := from
			for ; now-from < fn.share*unit; now = cpuclock.Thread() {
				x = fn.f(200000, x)
			}
			spent[fn.name] += now - from
		}
		sink = x
	}
	return spent
}

func total(spent []map[string]time.Duration) map[string]cpuclock.Path {
	paths := map[string]cpuclock.Path{}
	for _, s := range spent {
		for name, d := range s {
			p := paths[name]
			p.CPUNS += int64(d)
			p.Stack = []string{name, "main.thread"}
			paths[name] = p
		}
	}
	return paths
}
