// Command step goes once, between two marker functions, through every kind of code whose stack is hard to
// know at some instruction. It is meant to be single-stepped: deterministic, one goroutine at a time, no GC.
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	sink  uint64
	buf   = make([]byte, 4096)
	buf2  = make([]byte, 4096)
	huge  large
	huge2 large
)

// large is copied by duffcopy and cleared by duffzero, where compilers use them.
type large struct{ words [64]uint64 }

func main() {
	rounds := flag.Int("rounds", 1, "go through everything so many times")
	flag.Parse()
	debug.SetGCPercent(-1)
	run(*rounds)
}

//go:noinline
func run(rounds int) {
	markBegin()
	for i := 0; i < rounds; i++ {
		once()
	}
	markEnd()
}

//go:noinline
func markBegin() { sink++ }

//go:noinline
func markEnd() { sink++ }

//go:noinline
func once() {
	for _, f := range []func(){
		leaves, frames, memory, tables, closures, panics, goroutines, channels, deepStack, clocks, calls, hashing, sorting, formatting,
		allocating, runtimeCalls,
	} {
		f()
	}
}

//go:noinline
func leaf(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x << 13
	}
	return x
}

//go:noinline
func leaves() {
	for i := 0; i < 20; i++ {
		sink += leaf(i, sink) + inline1(i)
	}
}

func inline1(n int) uint64 { return inline2(n) + 1 }

func inline2(n int) uint64 { return leaf(n, 3) * 5 }

//go:noinline
func frames() {
	sink += small(1, 2, 3) + medium(7) + big(9) + copied(huge).words[3]
	huge2 = copied(huge)
	huge = zeroed()
}

//go:noinline
func small(a, b, c uint64) uint64 { return leaf(int(a), b) + c }

//go:noinline
func medium(n int) uint64 {
	var local [100]uint64
	local[n] = leaf(n, 1)
	return local[n/2] + leaf(n, local[n])
}

//go:noinline
func big(n int) uint64 {
	var local [3000]uint64
	local[n] = leaf(n, 1)
	return local[n] + medium(n)
}

//go:noinline
func copied(l large) large {
	l.words[3]++
	sink += leaf(2, l.words[4])
	return l
}

//go:noinline
func zeroed() large {
	var l large
	fill(&l)
	return l
}

//go:noinline
func fill(l *large) { l.words[5] = 5 }

//go:noinline
func memory() {
	for _, n := range []int{0, 1, 3, 7, 8, 15, 16, 31, 33, 64, 100, 129, 255, 257, 700, 2049} {
		copy(buf[:n], buf2)
		copy(buf[1:n+1], buf[:n]) // overlapping
		clearAll(buf2[:n])
		buf[n] = 1
		sink += uint64(bytes.IndexByte(buf[:n+1], 1) + bytes.Count(buf[:n], []byte{2}) + bytes.Compare(buf[:n], buf2[:n]))
		if bytes.Equal(buf[:n], buf2[:n]) {
			sink++
		}
		sink += uint64(strings.Index(string(buf[:n])+"needle in it", "needle"))
	}
}

//go:noinline
func clearAll(b []byte) {
	for i := range b {
		b[i] = 0
	}
}

type key struct {
	s string
	i interface{}
}

//go:noinline
func tables() {
	strs, ints, keys := map[string]int{}, map[uint32]uint64{}, map[key]int{}
	for i := 0; i < 12; i++ {
		s := strings.Repeat("k", i*3) + strconv.Itoa(i)
		strs[s] = i
		ints[uint32(i)] = uint64(i)
		keys[key{s, i}] = i
		sink += uint64(strs[s]) + ints[uint32(i+1)] + uint64(keys[key{s, i}])
	}
	for k, v := range ints {
		sink += uint64(k) + v
	}
	delete(strs, "k")
}

type shape interface{ area() uint64 }

type square struct{ side uint64 }

//go:noinline
func (s square) area() uint64 { return leaf(3, s.side) }

type framed struct {
	name string
	square
}

//go:noinline
func closures() {
	n := uint64(7)
	f := func(x uint64) uint64 { n += x; return leaf(2, n) }
	sink += apply(f, 3)
	for _, s := range []shape{square{1}, &square{2}, &framed{"f", square{3}}} {
		sink += s.area()
		sink += apply(func(uint64) uint64 { return s.area() }, 1)
	}
	sink += uint64(total([]int{1, 2, 3})) + uint64(total([]float64{1, 2, 3}))
}

//go:noinline
func apply(f func(uint64) uint64, x uint64) uint64 { return f(x) + 1 }

//go:noinline
func total[T int | float64](s []T) (sum T) {
	for _, v := range s {
		sum += v
	}
	return sum
}

//go:noinline
func panics() {
	for i := 0; i < 3; i++ {
		sink += deferred(i)
		sink += recovered(i)
	}
}

//go:noinline
func deferred(n int) (r uint64) {
	for i := 0; i < n; i++ {
		defer func(i int) { r += leaf(i, 1) }(i)
	}
	defer leaf(2, 2)
	return leaf(3, 3)
}

//go:noinline
func recovered(n int) (r uint64) {
	defer func() {
		if recover() != nil {
			r = leaf(4, 4)
		}
	}()
	var none []int
	if n > 0 {
		panic("a panic of our own")
	}
	return uint64(none[n])
}

//go:noinline
func goroutines() {
	var wg sync.WaitGroup
	for i := 0; i < 5; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			sink += leaf(i, 1)
			runtime.Gosched()
			if i == 3 {
				runtime.Goexit()
			}
			sink += medium(i)
		}(i)
	}
	runtime.Gosched()
	wg.Wait()
}

//go:noinline
func channels() {
	ping, pong, never := make(chan int), make(chan int, 1), make(chan int)
	go func() {
		for v := range ping {
			pong <- v + 1
		}
		close(pong)
	}()
	for i := 0; i < 5; i++ {
		ping <- i
		select {
		case v := <-pong:
			sink += uint64(v)
		case <-never:
		}
	}
	close(ping)
	<-pong
	timer := time.AfterFunc(time.Hour, func() {})
	timer.Stop()
}

// deepStack makes new goroutines grow their stacks, at frames of several sizes.
//
//go:noinline
func deepStack() {
	done := make(chan uint64)
	go func() { done <- recurse(30, 1) }()
	sink += <-done
	go func() { done <- big(5) }()
	sink += <-done
}

//go:noinline
func recurse(n int, x uint64) uint64 {
	var local [16]uint64
	if n == 0 {
		return leaf(3, x) + medium(2)
	}
	local[n%16] = x
	return recurse(n-1, x+1) + local[n%15]
}

//go:noinline
func clocks() {
	for i := 0; i < 5; i++ {
		now := time.Now()
		sink += uint64(time.Since(now)) + uint64(now.Unix())
	}
}

//go:noinline
func calls() {
	for i := 0; i < 5; i++ {
		var ru syscall.Rusage
		sink += uint64(syscall.Getppid())
		if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
			sink++
		}
	}
}

//go:noinline
func hashing() {
	sum := sha256.Sum256(buf[:300])
	sink += uint64(sum[0])
}

//go:noinline
func sorting() {
	s := make([]int, 40)
	for i := range s {
		s[i] = i * 7919 % 101
	}
	sort.Ints(s)
	sort.Slice(s, func(i, j int) bool { return s[i] > s[j] })
	sink += uint64(s[0])
}

//go:noinline
func formatting() {
	var out []byte
	for i := 0; i < 10; i++ {
		out = strconv.AppendInt(out, int64(i*i*i), 10)
		out = strconv.AppendFloat(out, float64(i)/3, 'g', -1, 64)
		out = strconv.AppendQuote(out, "größe")
	}
	sink += uint64(len(out))
}

type tree struct {
	left, right *tree
	pad         [3]uint64
}

var root *tree

//go:noinline
func allocating() {
	for i := 0; i < 30; i++ {
		root = &tree{left: root}
		sink += uint64(len(make([]byte, i*50)))
	}
	var grown []int
	for i := 0; i < 300; i++ {
		grown = append(grown, i)
	}
	sink += uint64(len(grown)) + uint64(len(make([]byte, 40000)))
	root = nil
}

//go:noinline
func runtimeCalls() {
	var pcs [20]uintptr
	sink += uint64(runtime.Callers(0, pcs[:]))
	frames := runtime.CallersFrames(pcs[:3])
	frame, _ := frames.Next()
	sink += uint64(frame.Line)
	debug.SetGCPercent(-1) // stops the world
	sink += uint64(runtime.NumGoroutine())
}
