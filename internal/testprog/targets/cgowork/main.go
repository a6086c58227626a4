// Command cgowork crosses between Go and C in every way, one after the other in short turns: C with and without frame
// pointers, callbacks from C into Go, a thread that C made, and libc. It prints the exact CPU time of each path.
package main

/*
#cgo CFLAGS: -O1
#cgo LDFLAGS: -lpthread
#include "work.h"
*/
import "C"

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"targets/internal/cpuclock"
)

var (
	sink     uint64
	stopping int32
	threadNS int64 // CPU time of the C thread inside Go
)

// paths have the functions of Go and C that samples of each must show, innermost first; C frames between
// those of Go may be missing where C keeps no frame pointer, the Go ones never.
var paths = []struct {
	name  string
	f     func()
	stack []string
}{
	{"fp", withFramePointers, []string{"fp_inner", "fp_outer", "main.withFramePointers"}},
	{"nofp", withoutFramePointers, []string{"nofp_inner", "main.withoutFramePointers"}},
	{"callback", callback, []string{"main.burn", "main.goCallback", "main.callback"}},
	{"memcpy", libcCopy, []string{"main.libcCopy"}},
	{"qsort", libcSort, []string{"main.libcSort"}},
	{"go", onlyGo, []string{"main.burn", "main.onlyGo"}},
}

func main() {
	seconds := flag.Float64("seconds", 10, "run for this long")
	turn := flag.Duration("turn", 10*time.Millisecond, "time for one path at a time")
	thread := flag.Bool("thread", true, "also run a thread that C made and that calls into Go")
	flag.Parse()
	began := time.Now()
	if *thread && C.start_thread_into_go() != 0 {
		fmt.Fprintln(os.Stderr, "no thread")
		os.Exit(1)
	}
	fmt.Println("ready", os.Getpid())
	truth := run(began.Add(time.Duration(*seconds*float64(time.Second))), *turn)
	atomic.StoreInt32(&stopping, 1)
	if *thread {
		C.join_thread()
		truth["thread"] = cpuclock.Path{CPUNS: threadNS, Stack: []string{"main.burn", "main.goThread"}}
	}
	cpuclock.Print(truth, began)
}

//go:noinline
func run(end time.Time, turn time.Duration) map[string]cpuclock.Path {
	runtime.LockOSThread()
	truth := map[string]cpuclock.Path{}
	for time.Now().Before(end) {
		for _, p := range paths {
			from := cpuclock.Thread()
			for cpuclock.Thread()-from < turn {
				p.f()
			}
			ns := truth[p.name].CPUNS + int64(cpuclock.Thread()-from)
			truth[p.name] = cpuclock.Path{CPUNS: ns, Stack: append(p.stack[:len(p.stack):len(p.stack)], "main.run", "main.main")}
		}
	}
	return truth
}

//go:noinline
func withFramePointers() { sink += uint64(C.fp_outer(100000)) }

//go:noinline
func withoutFramePointers() { sink += uint64(C.nofp_outer(100000)) }

//go:noinline
func callback() { C.call_go(100000) }

//export goCallback
func goCallback(n C.int) { sink += burn(int(n), sink) }

// goThread is called by the thread that C made, until it returns 0.
//
//export goThread
func goThread() C.int {
	from := cpuclock.Thread()
	sink += burn(1000000, sink)
	threadNS += int64(cpuclock.Thread() - from)
	return C.int(1 - atomic.LoadInt32(&stopping))
}

//go:noinline
func libcCopy() { sink += uint64(C.libc_copy(3)) }

//go:noinline
func libcSort() { sink += uint64(C.libc_sort(2000)) }

//go:noinline
func onlyGo() { sink += burn(100000, sink) }

//go:noinline
func burn(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}
