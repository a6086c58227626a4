// Command mixed does a bit of everything a Go program does, finely interleaved: every goroutine runs all
// paths in turn, a few milliseconds each, so that any two windows of some seconds see the same distribution.
//
// With -profile and -windows it takes its own CPU profiles, one after the other: the truth, and the ceiling that a
// profile of that length can reach against it. It says when each window begins and ends.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

func main() {
	seconds := flag.Float64("seconds", 30, "run for this long, when no profile is asked for")
	procs := flag.Int("procs", 2, "GOMAXPROCS; twice as many goroutines work")
	prefix := flag.String("profile", "", "write own CPU profiles to the files `prefix`1, prefix2, ...")
	windows := flag.String("windows", "", "how many `seconds` they last, such as 5,5,5")
	seed := flag.Int64("seed", 1, "order of the paths")
	slice := flag.Duration("slice", 10*time.Millisecond, "time for one path at a time")
	flag.Parse()
	runtime.GOMAXPROCS(*procs)
	for i := 0; i < 2**procs; i++ {
		go work(*seed+int64(i), *slice)
	}
	time.Sleep(100 * time.Millisecond) // every path has begun
	fmt.Println("ready", os.Getpid())
	if *prefix == "" {
		time.Sleep(duration(*seconds))
	} else if err := profiles(*prefix, strings.Split(*windows, ",")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("done")
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// profiles writes the process's own CPU profiles of consecutive windows. Go has one at a time.
func profiles(prefix string, windows []string) error {
	for i, window := range windows {
		seconds, err := strconv.ParseFloat(window, 64)
		if err != nil {
			return fmt.Errorf("-windows: %w", err)
		}
		f, err := os.Create(fmt.Sprint(prefix, i+1))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		fmt.Printf("window %d began\n", i+1)
		time.Sleep(duration(seconds))
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			return err
		}
		fmt.Printf("window %d ended\n", i+1)
	}
	return nil
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
