package main

import (
	"io"
	"runtime/pprof"
	"time"
)

// leaked has goroutines that nobody can wake any more, as the collector finds out (Go 1.27).
func leaked() {
	go rest(make(chan int))
	go func() { select {} }()
	time.Sleep(10 * time.Millisecond)
	check(pprof.Lookup("goroutineleak").WriteTo(io.Discard, 0))
}
