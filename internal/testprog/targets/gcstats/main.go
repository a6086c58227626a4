// Command gcstats keeps a heap, collects garbage, and then keeps still, so that what its runtime counts stays as it is.
//
// It prints a line "stats" with what runtime.MemStats says: NumGC, PauseTotalNs, LastGC, NextGC, HeapInuse, HeapAlloc, TotalAlloc,
// GCCPUFraction; then "ready".
package main

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

var kept [][]byte

func main() {
	keep := flag.Int("keep", 40, "MB that are kept")
	drop := flag.Int("drop", 200, "MB that are allocated besides")
	gcs := flag.Int("gcs", 3, "garbage collections at the end")
	percent := flag.Int("percent", 100, "GOGC")
	life := flag.Duration("life", time.Minute, "how long to live")
	flag.Parse()
	debug.SetGCPercent(*percent)
	for i := 0; i < *keep*100; i++ {
		kept = append(kept, make([]byte, 10000))
	}
	for i := 0; i < *drop*100; i++ {
		sink = make([]byte, 10000)
	}
	for i := 0; i < *gcs; i++ {
		runtime.GC()
	}
	time.Sleep(50 * time.Millisecond) // background sweeping has ended
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Println("stats", m.NumGC, m.PauseTotalNs, m.LastGC, m.NextGC, m.HeapInuse, m.HeapAlloc, m.TotalAlloc, m.GCCPUFraction)
	fmt.Println("ready")
	time.Sleep(*life)
	runtime.KeepAlive(kept)
}

var sink []byte
