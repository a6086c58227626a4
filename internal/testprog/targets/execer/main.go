// Command execer burns CPU, then replaces itself by the program given: same process, other image.
package main

import (
	"flag"
	"fmt"
	"os"
	"syscall"
	"time"
)

var sink uint64

func main() {
	ms := flag.Int("ms", 500, "burn for so many milliseconds before the exec")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: execer [-ms N] program [argument...]")
		os.Exit(2)
	}
	fmt.Println("ready", os.Getpid())
	for end := time.Now().Add(time.Duration(*ms) * time.Millisecond); time.Now().Before(end); {
		sink += beforeExec(200000, sink)
	}
	err := syscall.Exec(flag.Arg(0), flag.Args(), os.Environ())
	fmt.Fprintln(os.Stderr, "exec:", err)
	os.Exit(1)
}

//go:noinline
func beforeExec(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}
