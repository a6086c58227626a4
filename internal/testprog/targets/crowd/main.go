// Command crowd has many goroutines that wait, and one that never does and notes for how long it was kept from running.
//
//	crowd N     starts N goroutines, prints "addr HOST:PORT" and "ready", and serves there
//	            /debug/pprof/ as net/http/pprof does, and
//	            /longest: the longest time, in ns, between two looks at the clock since it was asked last, and
//	            /looks: how many there were, ever;
//	            built with the tag fgprof also /debug/fgprof
package main

import (
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var (
	longest int64 // ns
	looks   int64
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: crowd N")
		os.Exit(2)
	}
	n, err := strconv.Atoi(os.Args[1])
	check(err)
	var started sync.WaitGroup
	started.Add(n)
	var mu sync.Mutex
	mu.Lock()
	c, never := make(chan int), make(chan int)
	for i := 0; i < n; i++ {
		go descend(i%12, func() { wait(i, &started, &mu, c, never) })
	}
	started.Wait()
	time.Sleep(100 * time.Millisecond) // all of them park
	runtime.GC()
	debug.SetGCPercent(-1) // its pauses are not what is measured
	go spin()
	http.HandleFunc("/longest", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, atomic.SwapInt64(&longest, 0))
	})
	http.HandleFunc("/looks", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, atomic.LoadInt64(&looks))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println("addr", l.Addr())
	fmt.Println("ready")
	check(http.Serve(l, nil))
}

// descend makes stacks of different depths.
//
//go:noinline
func descend(depth int, f func()) {
	if depth == 0 {
		f()
		return
	}
	descend(depth-1, f)
}

// wait in one of a few ways.
func wait(i int, started *sync.WaitGroup, mu *sync.Mutex, c, never chan int) {
	started.Done()
	switch i % 4 {
	case 0:
		<-c
	case 1:
		mu.Lock()
	case 2:
		select {
		case <-c:
		case <-never:
		}
	default:
		time.Sleep(24 * time.Hour)
	}
}

// spin looks at the clock.
func spin() {
	for last := time.Now(); ; {
		now := time.Now()
		if gap := int64(now.Sub(last)); gap > atomic.LoadInt64(&longest) {
			atomic.StoreInt64(&longest, gap)
		}
		last = now
		atomic.AddInt64(&looks, 1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
