// Command leaf goes through paths whose stacks are known beforehand, one after the other in short turns, each
// under the pprof label "path". When it ends it prints the exact CPU time of each path.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"

	"targets/internal/cpuclock"
)

var (
	sink  uint64
	src   = bytes.Repeat([]byte{7}, 1<<15)
	dst   = make([]byte, 1<<15)
	table = map[string]int{}
	keys  []string
)

// path has the functions that every sample of it must show, innermost first, below whatever the named
// leaf calls itself. All end in main.run and main.main.
type path struct {
	name  string
	f     func()
	stack []string
}

var paths = []path{
	{"frameless", caller, []string{"main.leaf", "main.caller"}},
	{"framelessouter", outerCaller, []string{"main.outer", "main.outerCaller"}},
	{"inlined", inlineCaller, []string{"main.inline3", "main.inline2", "main.inline1", "main.inlineCaller"}},
	{"memmove", copier, []string{"runtime.memmove", "main.copier"}},
	{"memclr", clearer, []string{"runtime.memclrNoHeapPointers", "main.clearer"}},
	{"indexbyte", finder, []string{indexBody, "bytes.IndexByte", "main.finder"}},
	{"maps", looker, []string{"main.looker"}},
	{"clock", clock, []string{"time.Now", "main.clock"}},
	{"syscall", caller2, []string{"syscall.Getppid", "main.caller2"}},
	{"recursion", recursion, []string{"main.leaf", "main.recurse"}},
	{"closure", closure, []string{"main.closure.func1", "main.apply", "main.closure"}},
	{"deferred", deferrer, []string{"main.deferrer.func1", "main.deferrer"}},
}

func main() {
	seconds := flag.Float64("seconds", 10, "run for this long")
	turn := flag.Duration("turn", 10*time.Millisecond, "time for one path at a time")
	profile := flag.String("profile", "", "write an own CPU profile to `file`")
	flag.Parse()
	for i := 0; i < 256; i++ {
		keys = append(keys, "a key of some length "+strconv.Itoa(i))
		table[keys[i]] = i
	}
	defer profileTo(*profile)()
	fmt.Println("ready", os.Getpid())
	began := time.Now()
	spent := run(began.Add(time.Duration(*seconds*float64(time.Second))), *turn)
	cpuclock.Print(truth(spent), began)
}

// profileTo begins a CPU profile; the function returned ends it.
func profileTo(file string) func() {
	if file == "" {
		return func() {}
	}
	f, err := os.Create(file)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

//go:noinline
func run(end time.Time, turn time.Duration) []time.Duration {
	runtime.LockOSThread()
	spent := make([]time.Duration, len(paths))
	for time.Now().Before(end) {
		for i, p := range paths {
			pprof.Do(context.Background(), pprof.Labels("path", p.name), func(context.Context) {
				from := cpuclock.Thread()
				for cpuclock.Thread()-from < turn {
					p.f()
				}
				spent[i] += cpuclock.Thread() - from
			})
		}
	}
	return spent
}

func truth(spent []time.Duration) map[string]cpuclock.Path {
	out := map[string]cpuclock.Path{}
	for i, p := range paths {
		out[p.name] = cpuclock.Path{CPUNS: int64(spent[i]), Stack: append(p.stack, "main.run", "main.main")}
	}
	return out
}

//go:noinline
func leaf(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}

//go:noinline
func caller() { sink += leaf(100000, sink) }

// outer has no frame, and inner is inlined in it: two functions above the caller that a frame pointer misses.
//
//go:noinline
func outer(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x += inner(x)
	}
	return x
}

func inner(x uint64) uint64 { return x*3 + x>>7 }

//go:noinline
func outerCaller() { sink += outer(100000, sink) }

//go:noinline
func inlineCaller() { sink += inline1(100000, sink) }

func inline1(n int, x uint64) uint64 { return inline2(n, x) + 1 }

func inline2(n int, x uint64) uint64 { return inline3(n, x) ^ 2 }

func inline3(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = x*6364136223846793005 + uint64(i)
	}
	return x
}

//go:noinline
func copier() {
	for i := 0; i < 100; i++ {
		copy(dst, src)
	}
}

//go:noinline
func clearer() {
	for i := 0; i < 100; i++ {
		for j := range dst {
			dst[j] = 0
		}
	}
}

//go:noinline
func finder() {
	for i := 0; i < 100; i++ {
		sink += uint64(bytes.IndexByte(src, 1))
	}
}

//go:noinline
func looker() {
	for i := 0; i < 20; i++ {
		for _, k := range keys {
			sink += uint64(table[k])
		}
	}
}

//go:noinline
func clock() {
	for i := 0; i < 1000; i++ {
		sink += uint64(time.Now().Nanosecond())
	}
}

//go:noinline
func caller2() {
	for i := 0; i < 500; i++ {
		sink += uint64(syscall.Getppid())
	}
}

//go:noinline
func recursion() { sink += recurse(200, sink) }

//go:noinline
func recurse(n int, x uint64) uint64 {
	if n == 0 {
		return leaf(100000, x)
	}
	return recurse(n-1, x) + 1
}

//go:noinline
func closure() {
	n := 100000
	apply(func() {
		for i := 0; i < n; i++ {
			sink += uint64(i) * sink
		}
	})
}

//go:noinline
func apply(f func()) { f() }

//go:noinline
func deferrer() {
	defer func() {
		for i := 0; i < 100000; i++ {
			sink += uint64(i) * sink
		}
	}()
}
