// Command handler receives many signals while it burns CPU, so that samples hit the signal handler and the code around it.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

var sink uint64

func main() {
	seconds := flag.Float64("seconds", 10, "run for this long")
	rate := flag.Int("rate", 0, "SIGUSR1 a second; 0: as many as one goroutine can send")
	flag.Parse()
	runtime.GOMAXPROCS(2)
	var handled uint64
	received := make(chan os.Signal, 1024)
	signal.Notify(received, syscall.SIGUSR1)
	go func() {
		for range received {
			atomic.AddUint64(&handled, 1)
		}
	}()
	end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	fmt.Println("ready", os.Getpid())
	var sent uint64
	go send(*rate, end, &sent)
	for time.Now().Before(end) {
		sink += interrupted(200000, sink)
	}
	// The runtime merges signals that arrive before the last one was taken: each sent one ran the handler, or was pending.
	fmt.Println("sent", atomic.LoadUint64(&sent), "received", atomic.LoadUint64(&handled))
}

func send(rate int, end time.Time, sent *uint64) {
	for time.Now().Before(end) {
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		atomic.AddUint64(sent, 1)
		if rate > 0 {
			time.Sleep(time.Second / time.Duration(rate))
		}
	}
}

// interrupted is where most signals arrive.
//
//go:noinline
func interrupted(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}
