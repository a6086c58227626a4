// Command churn burns CPU for a short time and exits by itself.
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
	for cpuclock.Process() < time.Duration(*ms)*time.Millisecond {
		sink += burn(200000, sink)
	}
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
