// Command debug serves net/http/pprof, so that what others say of it can be held against that. It allocates at known places,
// collects garbage for the last time, and then spends CPU time in two functions, in shares of 3 to 1.
//
// It prints "ready" and its address, as in "ready 127.0.0.1:40123", and lives for -life.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

var (
	kept [][]byte
	sink uint64
)

//go:noinline
func keep(n, size int) {
	for i := 0; i < n; i++ {
		kept = append(kept, make([]byte, size))
	}
}

//go:noinline
func drop(n, size int) {
	for i := 0; i < n; i++ {
		kept[0] = make([]byte, size)
	}
}

//go:noinline
func alpha(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = x*31 + uint64(i)
	}
	return x
}

//go:noinline
func beta(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = x*37 + uint64(i)
	}
	return x
}

func main() {
	life := flag.Duration("life", time.Minute, "how long to live")
	busy := flag.Bool("busy", true, "use CPU time")
	flag.Parse()
	runtime.MemProfileRate = 512
	kept = append(kept, make([]byte, 16<<20)) // the next sample is due by the rate of before
	keep(1000, 64)
	keep(200, 5000)
	drop(500, 2000)
	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	debug.SetGCPercent(-1) // what is served is not counted from here on
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { fmt.Fprintln(os.Stderr, http.Serve(l, nil)) }()
	fmt.Println("ready", l.Addr())
	if !*busy {
		time.Sleep(*life)
		return
	}
	for end := time.Now().Add(*life); time.Now().Before(end); {
		sink = beta(1_000_000, alpha(3_000_000, sink))
	}
}
