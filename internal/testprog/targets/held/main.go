// Command held keeps its goroutines in states that are over in a moment as a rule:
//
//	held dump     "dumping heap": into a pipe that nobody reads
//	held trace    "trace reader (blocked)"
//	held status   "trace proc status": tracing ends, and must wait for a processor whose goroutine cannot be interrupted
//	held stop     "stopping the world": for the same reason
//	held worker   "GC worker (active)", "wait for GC cycle": the collector waits for the stacks of such goroutines
//	held mark     "GC assist wait", "GC assist marking": so do others that must help it
//	held done     "GC mark termination", "GC weak to strong wait", "wait for GC cycle": it waits for their processors
//	held idle     "finalizer wait", "cleanup wait": of the runtime's own goroutines
//	held leaked   in any: after a profile of leaked goroutines (Go 1.27)
//
// It prints "ready", and goes on to the state then. Those that cannot be interrupted need GODEBUG=asyncpreemptoff=1, and those modes that look at the
// collector's phase must be linked with -checklinkname=0 since Go 1.23.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/trace"
	"syscall"
	"time"
)

func main() {
	modes := map[string]func(){"dump": dump, "trace": tracing, "status": status, "stop": stop, "worker": worker, "mark": mark, "done": done, "idle": idle, "leaked": leaked}
	if len(os.Args) != 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: held dump|trace|status|stop|worker|mark|done|idle|leaked")
		os.Exit(2)
	}
	go rest(make(chan int))
	time.Sleep(10 * time.Millisecond)
	modes[os.Args[1]]()
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

//go:noinline
func rest(never chan int) int { return <-never }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// later does something once "ready" has been printed.
func later(f func()) {
	go func() {
		time.Sleep(100 * time.Millisecond)
		f()
	}()
}

func dump() {
	var fds [2]int
	check(syscall.Pipe(fds[:]))
	sink = make([]byte, 1<<20) // more than a pipe holds
	later(func() { debug.WriteHeapDump(uintptr(fds[1])) })
}

var sink []byte

func tracing() { check(trace.Start(io.Discard)) }

func status() {
	check(trace.Start(io.Discard))
	go spin()
	later(trace.Stop)
}

func stop() {
	go spin()
	var m runtime.MemStats
	later(func() { runtime.ReadMemStats(&m) })
}

// idle has the runtime's goroutines do what there is to do for them, and nothing more.
func idle() {
	c := make(chan bool)
	x := new([16]byte)
	runtime.SetFinalizer(x, func(*[16]byte) { close(c) })
	for _, start := range more {
		start()
	}
	runtime.GC()
	<-c
}

// more of idle, which not every version has.
var more []func()
