// Command allocload allocates and computes in turn, in one goroutine, so that it allocates -mbps MB a second where nobody
// disturbs it; whatever disturbs it makes it slower. It prints "ready" once it has found out how much to compute.
//
// It answers lines of its standard input: "count" with "<bytes allocated> <nanoseconds since the start> <nanoseconds
// of CPU time>"; "rate <n>" sets
// runtime.MemProfileRate and is answered with "ok".
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"
)

type (
	object16  struct{ a, b *byte }
	object48  struct{ p [6]*byte }
	object128 struct{ n [16]int64 }
	object512 struct{ n [64]int64 }
)

var (
	kept  [4]interface{}
	live  []*object512
	sum   uint64
	total int64 // bytes
)

// piece allocates 64 KiB in small objects of several sizes, in no regular order.
func piece(r *rand.Rand) {
	for n := 0; n < 64<<10; {
		switch r.Intn(8) {
		case 0, 1, 2:
			kept[0] = new(object16)
			n += 16
		case 3, 4, 5:
			kept[1] = new(object48)
			n += 48
		case 6:
			kept[2] = new(object128)
			n += 128
		default:
			kept[3] = new(object512)
			n += 512
		}
	}
	atomic.AddInt64(&total, 64<<10)
}

//go:noinline
func compute(n int) {
	for i := 0; i < n; i++ {
		sum = sum*6364136223846793005 + 1442695040888963407
	}
}

// work allocates and computes for a while, and returns MB a second.
func work(r *rand.Rand, n int, d time.Duration) float64 {
	start, before := time.Now(), total
	for time.Since(start) < d {
		piece(r)
		compute(n)
	}
	return float64(total-before) / (1 << 20) / time.Since(start).Seconds()
}

// calibrate finds out how much to compute for each piece.
func calibrate(r *rand.Rand, mbps float64) int {
	start := time.Now()
	compute(10000000)
	step := float64(time.Since(start)) / 10000000 // nanoseconds
	n := 0.0
	for i := 0; i < 5 && mbps > 0; i++ {
		have := work(r, int(n), 200*time.Millisecond)
		const perPiece = 1e9 / 16 // nanoseconds of a piece at 1 MB a second
		if n += (perPiece/mbps - perPiece/have) / step; n < 0 {
			n = 0
		}
	}
	return int(n)
}

func main() {
	mbps := flag.Float64("mbps", 0, "MB a second; 0: nothing is computed in between")
	flag.Parse()
	runtime.MemProfileRate = 0
	for i := 0; i < 16<<20/512; i++ {
		live = append(live, new(object512))
	}
	r := rand.New(rand.NewSource(1))
	n := calibrate(r, *mbps)
	start := time.Now()
	fmt.Println("ready")
	go answer(start)
	for {
		work(r, n, time.Second)
	}
}

// cpuTime is that of the whole process, in nanoseconds; traps are part of it.
func cpuTime() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func answer(start time.Time) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var rate int
		if _, err := fmt.Sscanf(in.Text(), "rate %d", &rate); err == nil {
			runtime.MemProfileRate = rate
			fmt.Println("ok")
			continue
		}
		fmt.Println(atomic.LoadInt64(&total), int64(time.Since(start)), cpuTime())
	}
	if err := pprof.Lookup("heap").WriteTo(io.Discard, 0); err != nil { // so that there is a profile
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(0)
}
