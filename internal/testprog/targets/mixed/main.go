// Command mixed does a bit of everything a Go program does, finely interleaved: every goroutine runs all
// paths in turn, a few milliseconds each, so that any two windows of some seconds see the same distribution.
//
// With -profile it takes its own CPU profile of -window seconds, and with -second a further one at once:
// the truth, and the ceiling that a profile of that length can reach against it.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

func main() {
	seconds := flag.Float64("seconds", 30, "run for this long, when no profile is asked for")
	procs := flag.Int("procs", 2, "GOMAXPROCS; twice as many goroutines work")
	first := flag.String("profile", "", "write an own CPU profile of the first window to `file`")
	second := flag.String("second", "", "write an own CPU profile of the second window to `file`")
	window := flag.Float64("window", 10, "length of the first window in seconds")
	window2 := flag.Float64("window2", 0, "length of the second window in seconds (default: as the first)")
	seed := flag.Int64("seed", 1, "order of the paths")
	slice := flag.Duration("slice", 10*time.Millisecond, "time for one path at a time")
	flag.Parse()
	runtime.GOMAXPROCS(*procs)
	for i := 0; i < 2**procs; i++ {
		go work(*seed+int64(i), *slice)
	}
	time.Sleep(100 * time.Millisecond) // every path has begun
	fmt.Println("ready", os.Getpid())
	if *first == "" {
		time.Sleep(duration(*seconds))
	} else {
		profile("window 1", *first, duration(*window))
	}
	if *second != "" {
		if *window2 == 0 {
			*window2 = *window
		}
		profile("window 2", *second, duration(*window2))
	}
	fmt.Println("done")
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// profile writes the process's own CPU profile of the next d to file.
func profile(name, file string, d time.Duration) {
	f, err := os.Create(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(name)
	time.Sleep(d)
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// work runs all paths in turn, in an order that changes with every round.
func work(seed int64, slice time.Duration) {
	w := newWorker(rand.New(rand.NewSource(seed)))
	paths := w.paths()
	for {
		w.rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
		for _, path := range paths {
			runFor(path.f, slice/path.part)
		}
	}
}

//go:noinline
func runFor(path func(), slice time.Duration) {
	for end := time.Now().Add(slice); time.Now().Before(end); {
		path()
	}
}
