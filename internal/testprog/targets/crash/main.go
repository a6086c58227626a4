// Command crash ends in one of several ways, while goroutines run on other threads whose stacks are known.
//
//	crash MODE [-alone]   starts them, but for -alone, prints ready, and crashes; wait: waits to be killed
//
// The first function of each of them says what it does; main.known, its second, calls what runs.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	mode := modes[os.Args[1]]
	if mode == nil {
		fmt.Fprintln(os.Stderr, "usage: crash MODE")
		os.Exit(2)
	}
	if len(os.Args) == 2 {
		run()
	}
	fmt.Println("ready")
	mode()
	time.Sleep(time.Hour)
}

// modes of crashing.
var modes = map[string]func(){
	"wait": func() {}, "panic": boom, "nil": dereference, "deadlock": deadlock, "memory": exhaust, "map": writeMap, "overflow": overflow,
	"nested": nested, "other": other,
}

// run starts goroutines that run on threads of their own.
func run() {
	runtime.GOMAXPROCS(8)
	debug.SetGCPercent(-1) // garbage collections stop the others
	all := []func(){spin, leaf, now, allocate, call, locked}
	for _, f := range all {
		go f()
	}
	go func() { <-make(chan int) }()
	for atomic.LoadInt32(&started) < int32(len(all)) {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
}

var started int32

var sink struct {
	n   uint64
	at  time.Time
	mem [8][]byte
}

//go:noinline
func known(f func()) {
	atomic.AddInt32(&started, 1)
	for {
		f()
	}
}

func spin() { known(spinning) }

//go:noinline
func spinning() {
	for i := uint64(0); i < 1000; i++ {
		sink.n += i * i
	}
}

func leaf() { known(calling) }

//go:noinline
func calling() { tiny(3) }

//go:noinline
func tiny(n uint64) uint64 { return n * n }

func now() { known(asking) }

//go:noinline
func asking() { sink.at = time.Now() }

func allocate() { known(allocating) }

//go:noinline
func allocating() {
	for i := 0; i < 100; i++ {
		spinning()
	}
	for i := range sink.mem {
		sink.mem[i] = make([]byte, 64<<uint(i))
	}
}

func call() { known(entering) }

//go:noinline
func entering() { syscall.Getppid() }

func locked() {
	runtime.LockOSThread()
	known(spinning)
}

//go:noinline
func boom() { panic("boom") }

//go:noinline
func dereference() {
	var p *struct {
		pad [40]byte
		n   uint64
	}
	p.n = sink.n
}

// nested panics while another panic unwinds.
func nested() {
	defer func() { dereference() }()
	boom()
}

// other crashes in a goroutine that is not the first.
func other() {
	go known(boom)
	time.Sleep(time.Hour)
}

//go:noinline
func deadlock() { <-make(chan int) }

// exhaust wants more than it may have.
//
//go:noinline
func exhaust() {
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: 8 << 30, Max: 8 << 30}); err != nil {
		panic(err)
	}
	n := 16 << 30
	sink.mem[0] = make([]byte, n)
}

func writeMap() {
	m := make(map[int]int)
	for range [8]int{} {
		go func() {
			for i := 0; ; i++ {
				m[i&15]++
			}
		}()
	}
	time.Sleep(time.Hour)
}

func overflow() {
	debug.SetMaxStack(1 << 20)
	deeper(1)
}

//go:noinline
func deeper(n uint64) uint64 { return deeper(n+1) + tiny(n) }
