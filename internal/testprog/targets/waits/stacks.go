package main

import (
	"runtime"
	"sort"
	"strings"
)

// panics: functions that wait while their goroutine panics or ends.
func panics() {
	go func() {
		defer func() {
			_ = recover()
			<-make(chan int)
		}()
		panic("on purpose")
	}()
	go func() {
		defer func() { <-make(chan int) }() // the panic goes on
		var p *[8]int
		fault(p)
	}()
	go func() {
		defer func() { <-make(chan int) }()
		var m map[string]int
		m["x"] = 1
	}()
	go func() {
		defer func() { <-make(chan int) }()
		var list []int
		println(list[len(strings.Repeat("x", 5))])
	}()
	go func() {
		defer func() { select {} }()
		runtime.Goexit()
	}()
	x := new([16]byte)
	runtime.SetFinalizer(x, func(*[16]byte) { <-make(chan int) })
}

//go:noinline
func fault(p *[8]int) { p[3]++ }

// stacks: of all shapes.
func stacks() {
	c := make(chan int)
	go recursion(5, c)
	go recursion(90, c)
	go recursion(3000, c)
	go generic("x", c)
	go generic(1, c)
	go pair[int, string]{}.method(c)
	go bigFrame(c)
	go hugeFrame(c)
	var w waiter = &outer{inner: inner{c}}
	go w.wait() // by a wrapper
	go w.(*outer).wait()
	wait := w.wait
	go wait() // a method value
	go inlined(c)
	go func() { inlined(c) }()
	startInlined(c)
	go sort.Slice(make([]int, 3), func(int, int) bool { <-c; return false })
	go strings.Map(func(r rune) rune { <-c; return r }, "abc")
	go deferred(c)
	go func() {
		func() {
			func() { <-c }()
		}()
	}()
	go variadic(c, 1, 2, 3)
	go manyArgs(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, c)
	go spin()
	go spin()
	go yield()
}

//go:noinline
func recursion(n int, c chan int) int {
	if n == 0 {
		return <-c
	}
	return recursion(n-1, c) + n
}

//go:noinline
func generic[T any](v T, c chan int) T {
	<-c
	return v
}

type pair[A, B any] struct {
	a A
	b B
}

//go:noinline
func (pair[A, B]) method(c chan int) { <-c }

//go:noinline
func bigFrame(c chan int) byte {
	var b [4 << 10]byte
	<-c
	return b[use(b[:])]
}

//go:noinline
func hugeFrame(c chan int) byte {
	var b [300 << 10]byte
	<-c
	return b[use(b[:])]
}

//go:noinline
func use(b []byte) int { return int(b[0]) }

type waiter interface{ wait() int }

type inner struct{ c chan int }

//go:noinline
func (i inner) wait() int { return <-i.c }

type outer struct {
	n int
	inner
}

func inlined(c chan int) int { return inlined2(c) + 1 }

func inlined2(c chan int) int { return inlined3(c) + 1 }

func inlined3(c chan int) int {
	return <-c
}

// startInlined is inlined into stacks.
func startInlined(c chan int) { go receive(c) }

func deferred(c chan int) {
	defer func() {
		defer func() { <-c }()
	}()
}

//go:noinline
func variadic(c chan int, list ...int) int { return <-c + len(list) }

//go:noinline
func manyArgs(a, b, c, d, e, f, g, h, i, j, k, l int, ch chan int) int {
	return <-ch + a + b + c + d + e + f + g + h + i + j + k + l
}

func spin() {
	for n := 0; ; n++ {
	}
}

func yield() {
	for {
		runtime.Gosched()
	}
}
