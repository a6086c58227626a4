package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"
)

func framePointer() uintptr

// stack prints the physical return addresses above it, by frame pointers (they include those of
// wrappers), and the functions that runtime.Callers reports (they do not):
//
//	P pc...     link-time
//	S name...   as runtime/pprof names them
func stack(bias uintptr) {
	fmt.Print("P")
	for fp, n := framePointer(), 0; fp != 0 && n < 64; n++ {
		ret := *(*uintptr)(unsafe.Pointer(fp + 8))
		fmt.Printf(" %x", ret-bias)
		fp = *(*uintptr)(unsafe.Pointer(fp))
	}
	fmt.Print("\nS")
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])])
	for more := true; more; {
		var fr runtime.Frame
		fr, more = frames.Next()
		fmt.Printf(" %s", toFrame(&fr).name)
	}
	fmt.Println()
}

type caller uintptr

//go:noinline
func (c caller) call() { stack(uintptr(c)) }

type iface interface{ call() }

type embeds struct{ iface }

type embedsValue struct {
	_ [4]int
	caller
}

// results are returned on the stack: a wrapper needs a frame to hand them on, and has it when it faults.
type results [16]int

type ifaceResults interface{ call() results }

type embedsResults struct{ ifaceResults }

//go:noinline
func runResults(i ifaceResults) results { return i.call() }

//go:noinline
func run(f func()) { f() }

//go:noinline
func runIface(i iface) { i.call() }

// stacks prints stacks with wrappers of every kind.
func stacks(bias uintptr) {
	c := caller(bias)
	runIface(c)                         // (*caller).call
	runIface(embeds{c})                 // embeds.call
	runIface(&embeds{&c})               // (*embeds).call
	runIface(&embedsValue{caller: c})   // (*embedsValue).call
	run(c.call)                         // caller.call-fm
	run((&embeds{c}).call)              // embeds.call-fm
	run(func() { defer stack(bias) })   // deferreturn
	panics(bias, func() { panic("x") }) // gopanic
	panics(bias, func() { io.WriteString(os.Stdout, string(b0[len(b0)+int(bias&1)-1:][1:2])) })
	var nilCaller *caller
	panics(bias, func() { runIface(nilCaller) })          // panicwrap
	panics(bias, func() { runResults(&embedsResults{}) }) // sigpanic in a wrapper
}

// panics prints the stack of a function deferred while f panics.
//
//go:noinline
func panics(bias uintptr, f func()) {
	defer func() {
		stack(bias)
		recover()
	}()
	f()
}
