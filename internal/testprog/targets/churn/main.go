// Command churn burns CPU for a short time, says how much that was ("used NS"), and exits by itself. CPU time from
// before main does not count: a process keeps its clock when it executes a program.
//
// With -life it stays that long, idle after it has burned. With -resident it burns over and over, under a label that is
// another one each time, until it is killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"time"

	"targets/internal/cpuclock"
)

var sink uint64

func main() {
	began := time.Now()
	ms := flag.Int("ms", 100, "CPU time to burn, in milliseconds")
	life := flag.Int("life", 0, "time to stay, in milliseconds")
	pause := flag.Int("resident", 0, "burn again after so many milliseconds, for ever; 0: once")
	code := flag.Int("exit", 0, "exit status")
	flag.Parse()
	fmt.Println("ready", os.Getpid())
	for i := 0; *pause > 0; i++ {
		pprof.Do(context.Background(), pprof.Labels("request", strconv.Itoa(i)), func(context.Context) { use(*ms) })
		time.Sleep(time.Duration(*pause) * time.Millisecond)
	}
	fmt.Println("used", int64(use(*ms)))
	time.Sleep(time.Until(began.Add(time.Duration(*life) * time.Millisecond)))
	os.Exit(*code)
}

// use burns and returns how much.
func use(ms int) time.Duration {
	began := cpuclock.Process()
	for cpuclock.Process()-began < time.Duration(ms)*time.Millisecond {
		sink += burn(20000, sink)
	}
	return cpuclock.Process() - began
}

//go:noinline
func burn(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}
