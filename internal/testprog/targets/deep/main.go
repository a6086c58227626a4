// Command deep burns CPU at the bottom of a recursion of known depth.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

var sink uint64

func main() {
	depth := flag.Int("depth", 200, "calls of main.recurse above the leaf")
	seconds := flag.Float64("seconds", 10, "run for this long")
	flag.Parse()
	end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	recurse(*depth, end)
	fmt.Println("done", sink)
}

// recurse calls itself until it has been called depth times, then says "ready" and burns until the end.
//
//go:noinline
func recurse(depth int, end time.Time) {
	if depth > 1 {
		recurse(depth-1, end)
		sink++ // no tail call
		return
	}
	fmt.Println("ready", os.Getpid())
	for time.Now().Before(end) {
		sink += burn(1000000, sink)
	}
}

//go:noinline
func burn(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}
