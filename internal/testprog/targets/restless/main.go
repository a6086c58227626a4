// Command restless has goroutines that go from one kind of waiting to the next as fast as they can, beside some that wait for ever, so
// that whoever reads their stacks reads them while they change. Each of its functions calls each other one in one place only.
//
//	restless IDLE     prints "idle N" and "ready", and goes on until it is killed
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	idle, err := strconv.Atoi(os.Args[1])
	check(err)
	for i := 0; i < idle; i++ {
		go rest()
	}
	for i := 0; i < 8; i++ {
		ping, pong := make(chan int), make(chan int)
		go churn(ping, pong)
		go echo(ping, pong)
	}
	for i := 0; i < 4; i++ {
		go calls()
	}
	go starter()
	go garbage()
	go relabel()
	time.Sleep(100 * time.Millisecond)
	fmt.Printf("idle %d\nready\n", idle)
	time.Sleep(time.Hour)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

var (
	never = make(chan int)
	depth int32
)

// rest waits for ever.
func rest() { waitForEver(never, int(atomic.AddInt32(&depth, 1)%20)) }

//go:noinline
func waitForEver(c chan int, depth int) int {
	if depth > 0 {
		return waitForEver(c, depth-1) + 1
	}
	return <-c
}

// churn waits in turns below functions with frames of different sizes.
func churn(ping, pong chan int) {
	for {
		small(ping, pong)
		large(ping, pong)
		nap()
	}
}

//go:noinline
func small(ping, pong chan int) { smallSend(ping); smallReceive(pong) }

//go:noinline
func smallSend(c chan int) { c <- 1 }

//go:noinline
func smallReceive(c chan int) { <-c }

//go:noinline
func large(ping, pong chan int) {
	var b [200]byte
	b[len(pong)] = 1
	largeSend(ping, &b)
	largeReceive(pong, b)
}

//go:noinline
func largeSend(c chan int, b *[200]byte) { c <- int(b[0]) }

//go:noinline
func largeReceive(c chan int, b [200]byte) byte {
	var d [333]byte
	select {
	case n := <-c:
		d[n] = b[n]
	}
	return d[len(c)]
}

//go:noinline
func nap() { runtime.Gosched() }

// echo answers.
func echo(ping, pong chan int) {
	for v := range ping {
		answer(pong, v)
	}
}

//go:noinline
func answer(c chan int, v int) { c <- v }

// calls makes system calls that return at once, in functions with frames of different sizes.
func calls() {
	f, err := os.Open("/dev/zero")
	check(err)
	fd := int(f.Fd())
	for {
		shortCall(fd)
		longCall(fd)
	}
}

//go:noinline
func shortCall(fd int) { readInto(fd, make([]byte, 8)) }

//go:noinline
func readInto(fd int, b []byte) { _, _ = syscall.Read(fd, b) }

//go:noinline
func longCall(fd int) byte {
	var b [500]byte
	seek(fd)
	return b[len(os.Args)]
}

//go:noinline
func seek(fd int) { _, _ = syscall.Seek(fd, 0, 0) }

// starter starts goroutines that end soon, some of them after they have needed a large stack.
func starter() {
	for {
		var wg sync.WaitGroup
		for i := 0; i < 16; i++ {
			wg.Add(1)
			go short(&wg, i)
		}
		wg.Wait()
	}
}

func short(wg *sync.WaitGroup, i int) {
	defer wg.Done()
	if i%4 == 0 {
		grow(100)
	}
	nap2()
}

//go:noinline
func nap2() { runtime.Gosched() }

//go:noinline
func grow(n int) byte {
	var b [128]byte
	if n == 0 {
		nap3()
		return b[n]
	}
	return grow(n-1) + b[n%128]
}

//go:noinline
func nap3() { runtime.Gosched() }

// garbage makes the collector run, which shrinks stacks.
func garbage() {
	for {
		for i := 0; i < 1000; i++ {
			sink = make([]byte, 10<<10)
		}
		pause()
	}
}

var sink []byte

//go:noinline
func pause() { time.Sleep(time.Millisecond) }

// relabel changes its labels all the time: both always have the same value.
func relabel() {
	for i := 0; ; i++ {
		v := strconv.Itoa(i)
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("one", v, "two", v)))
		nap4()
	}
}

//go:noinline
func nap4() { runtime.Gosched() }
