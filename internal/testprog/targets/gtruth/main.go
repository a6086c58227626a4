// Command gtruth prints truths about its own goroutines, then waits until its standard input ends.
//
//	goid N label VALUE   one line a goroutine; VALUE is the pprof label "who", "-" where there are no labels
//	curg N tid T         the main goroutine, locked to thread T
//	ready                every line is printed, every goroutine is parked
//
// With the argument "busy" further goroutines switch as fast as they can.
// After "ready" the main goroutine sits in a read system call on thread T.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const workers = 12

func main() {
	runtime.LockOSThread()
	hold := make(chan struct{})
	var mu sync.Mutex
	var started sync.WaitGroup
	if len(os.Args) > 1 && os.Args[1] == "busy" {
		for i := 0; i < 4; i++ {
			ball := make(chan int)
			go pass(ball)
			go pass(ball)
			ball <- 1
		}
	}
	for i := 0; i < workers; i++ {
		started.Add(1)
		go worker(i, &mu, &started, hold)
	}
	started.Wait()
	callC()
	time.Sleep(20 * time.Millisecond) // let the workers park
	fmt.Printf("curg %d tid %d\nready\n", goid(), syscall.Gettid())
	var b [1]byte
	_, _ = os.NewFile(0, "stdin").Read(b[:])
	close(hold)
}

// worker prints its truth; every odd one carries pprof labels.
func worker(i int, mu *sync.Mutex, started *sync.WaitGroup, hold chan struct{}) {
	label := "-"
	if i%2 == 1 {
		label = "worker" + strconv.Itoa(i)
		ctx := pprof.WithLabels(context.Background(), pprof.Labels("who", label, "also", "x"))
		pprof.SetGoroutineLabels(ctx)
	}
	mu.Lock()
	fmt.Printf("goid %d label %s\n", goid(), label)
	mu.Unlock()
	started.Done()
	<-hold
}

// pass plays ping-pong for ever.
func pass(ball chan int) {
	for v := range ball {
		ball <- v
	}
}

// goid reads the goroutine's id from its own stack trace.
func goid() int {
	var buf [64]byte
	fields := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	n, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		panic(err)
	}
	return n
}
