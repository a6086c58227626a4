// Command churn burns CPU for a short time, says how much that was ("used NS"), and exits by itself. CPU time from
// before main does not count: a process keeps its clock when it executes a program.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"targets/internal/cpuclock"
)

var sink uint64

func main() {
	ms := flag.Int("ms", 100, "CPU time to burn, in milliseconds")
	code := flag.Int("exit", 0, "exit status")
	flag.Parse()
	fmt.Println("ready", os.Getpid())
	began := cpuclock.Process()
	for cpuclock.Process()-began < time.Duration(*ms)*time.Millisecond {
		sink += burn(20000, sink)
	}
	fmt.Println("used", int64(cpuclock.Process()-began))
	os.Exit(*code)
}

//go:noinline
func burn(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}
