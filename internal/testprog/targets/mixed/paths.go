package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"runtime/pprof"
	"sort"
	"strconv"
	"syscall"
	"time"
)

// worker owns the data of one goroutine. Each path takes some 50-200 µs.
type worker struct {
	rng     *rand.Rand
	sink    uint64
	big     []byte
	big2    []byte
	keys    []string
	long    []string
	table   map[string]int
	ints    map[int]int
	records []record
	scratch []record
	ring    [512]*node
	doc     []byte
	ping    chan int
	pong    chan int
	quit    chan struct{} // never closed: it makes echo's send a select
}

type record struct {
	Name  string    `json:"name"`
	ID    int       `json:"id"`
	Score float64   `json:"score"`
	Tags  []string  `json:"tags"`
	Inner *record   `json:"inner,omitempty"`
	Pad   [4]uint64 `json:"-"`
}

type node struct {
	left, right *node
	payload     []byte
}

func newWorker(rng *rand.Rand) *worker {
	w := &worker{rng: rng, big: make([]byte, 1<<16), big2: make([]byte, 1<<16), table: map[string]int{}, ints: map[int]int{},
		ping: make(chan int), pong: make(chan int, 4), quit: make(chan struct{})}
	for i := range w.big {
		w.big[i] = byte(i%251) + 1
	}
	for i := 0; i < 500; i++ {
		key := "key-" + strconv.Itoa(rng.Int())
		w.keys = append(w.keys, key)
		w.long = append(w.long, key+string(bytes.Repeat([]byte("x"), 200))+key)
		w.table[key] = i
		w.table[w.long[i]] = i
		w.ints[rng.Int()] = i
		w.records = append(w.records, record{Name: key, ID: rng.Int(), Score: rng.Float64(), Tags: []string{"a", "b"}})
	}
	w.scratch = make([]record, len(w.records))
	w.doc, _ = json.Marshal(w.records[:8])
	go w.echo()
	return w
}

// path is one kind of work; it gets its part of the time for a path. Those with many rare stacks get less, so that
// windows of some seconds agree.
type path struct {
	f    func()
	part time.Duration // a divisor
}

func (w *worker) paths() []path {
	return []path{
		{w.deep, 1}, {w.inlined, 1}, {w.frameless, 1}, {w.moving, 1}, {w.clearing, 1}, {w.searching, 1}, {w.stringMaps, 1}, {w.intMaps, 2},
		{w.allocating, 3}, {w.clock, 1}, {w.readFile, 1}, {w.getppid, 1}, {w.sortClosure, 3}, {w.sortGeneric, 1}, {w.channels, 2},
		{w.deferring, 1}, {w.hashing, 1}, {w.encoding, 8}, {w.decoding, 8}, {w.methods, 1}, {w.labelled, 1}, {w.formatting, 8},
	}
}

// deep recurses 200 calls, with a little work on every level and more at the bottom.
func (w *worker) deep() { w.sink += recurse(200, w.sink) }

//go:noinline
func recurse(n int, x uint64) uint64 {
	if n == 0 {
		return frameless(40000, x)
	}
	return recurse(n-1, x*3) + uint64(n)
}

// inlined is a chain of calls that the compiler inlines, three deep, with the loop at the innermost.
func (w *worker) inlined() { w.sink += outer(w.sink, 60000) }

//go:noinline
func outer(x uint64, n int) uint64 { return inline1(x, n) ^ 5 }

func inline1(x uint64, n int) uint64 { return inline2(x+1, n) + 3 }

func inline2(x uint64, n int) uint64 { return inline3(x^7, n) * 3 }

func inline3(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*6364136223846793005 + uint64(i)
	}
	return x
}

// frameless calls a leaf function without a frame of its own: no calls, no locals on the stack.
func (w *worker) frameless() { w.sink += caller(w.sink) }

//go:noinline
func caller(x uint64) uint64 { return frameless(60000, x) + 1 }

//go:noinline
func frameless(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}

func (w *worker) moving() {
	for i := 0; i < 40; i++ {
		copyAll(w.big2, w.big)
		for n := 1; n < 300; n += 7 {
			copyAll(w.big2[:n], w.big[n:])
		}
	}
}

//go:noinline
func copyAll(dst, src []byte) { copy(dst, src) }

func (w *worker) clearing() {
	for i := 0; i < 60; i++ {
		clearAll(w.big2)
	}
}

//go:noinline
func clearAll(b []byte) {
	for i := range b {
		b[i] = 0
	}
}

func (w *worker) searching() {
	for i := 0; i < 60; i++ {
		w.sink += uint64(find(w.big))
	}
}

//go:noinline
func find(b []byte) int { return bytes.IndexByte(b, 0) + bytes.Count(b[:100], b[:1]) }

func (w *worker) stringMaps() {
	for i, key := range w.keys {
		w.sink += uint64(w.table[key] + w.table[w.long[i]])
		w.table[key] = i
	}
}

func (w *worker) intMaps() {
	m := make(map[int]int, 8)
	for i := 0; i < 300; i++ {
		m[i*7919] = i
	}
	for k, v := range w.ints {
		w.sink += uint64(m[k] + v)
	}
}

func (w *worker) allocating() {
	for i := 0; i < 300; i++ {
		w.ring[w.rng.Intn(len(w.ring))] = grow(3, 64+w.rng.Intn(1000))
	}
}

//go:noinline
func grow(depth, size int) *node {
	n := &node{payload: make([]byte, size)}
	if depth > 0 {
		n.left, n.right = grow(depth-1, size/2), grow(depth-1, size/3)
	}
	return n
}

func (w *worker) clock() {
	for i := 0; i < 500; i++ {
		w.sink += uint64(stamp().Nanosecond())
	}
}

//go:noinline
func stamp() time.Time { return time.Now() }

func (w *worker) readFile() {
	for i := 0; i < 5; i++ {
		data, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			panic(err)
		}
		w.sink += uint64(len(data))
	}
}

func (w *worker) getppid() {
	for i := 0; i < 300; i++ {
		w.sink += uint64(syscall.Getppid())
	}
}

func (w *worker) sortClosure() {
	rs := w.scratch
	copy(rs, w.records)
	sort.Slice(rs, func(i, j int) bool { return rs[i].ID < rs[j].ID })
}

func (w *worker) sortGeneric() {
	rs := w.scratch
	copy(rs, w.records)
	quick(rs, func(a, b *record) bool { return a.Score < b.Score })
}

// quick is a plain quicksort over any type.
func quick[T any](s []T, less func(a, b *T) bool) {
	if len(s) < 2 {
		return
	}
	last := 0
	for i := 1; i < len(s); i++ {
		if less(&s[i], &s[0]) {
			last++
			s[last], s[i] = s[i], s[last]
		}
	}
	s[0], s[last] = s[last], s[0]
	quick(s[:last], less)
	quick(s[last+1:], less)
}

// echo is the other goroutine of the path channels.
func (w *worker) echo() {
	for v := range w.ping {
		select {
		case w.pong <- v + 1:
		case <-w.quit:
			return
		}
	}
}

func (w *worker) channels() {
	for i := 0; i < 50; i++ {
		w.ping <- i
		w.sink += uint64(<-w.pong)
	}
}

func (w *worker) deferring() {
	for i := 0; i < 300; i++ {
		w.sink += deferred(w.sink)
	}
}

//go:noinline
func deferred(x uint64) (r uint64) {
	defer func() { r += frameless(50, x) }()
	for i := 0; i < 3; i++ {
		defer func(n int) { r += frameless(n, x) }(20)
	}
	return inline3(x, 50)
}

func (w *worker) hashing() {
	sum := sha256.Sum256(w.big)
	w.sink += uint64(sum[0])
}

func (w *worker) encoding() {
	out, err := json.Marshal(w.records[:16])
	if err != nil {
		panic(err)
	}
	w.sink += uint64(len(out))
}

func (w *worker) decoding() {
	var rs []record
	if err := json.Unmarshal(w.doc, &rs); err != nil {
		panic(err)
	}
	w.sink += uint64(len(rs))
}

// shape's methods are reached through wrappers: a value method by pointer, a promoted one, a method value.
type shape interface{ area(n int) uint64 }

type square struct{ side uint64 }

//go:noinline
func (s square) area(n int) uint64 { return frameless(n, s.side) }

type named struct {
	name string
	square
}

func (w *worker) methods() {
	shapes := []shape{square{w.sink}, &square{w.sink}, &named{"n", square{3}}, named{"v", square{4}}}
	for i := 0; i < 20; i++ {
		for _, s := range shapes {
			w.sink += s.area(600)
			w.sink += apply(s.area)
		}
	}
}

//go:noinline
func apply(f func(int) uint64) uint64 { return f(300) }

func (w *worker) labelled() {
	pprof.Do(context.Background(), pprof.Labels("path", "labelled", "worker", "mixed"), func(context.Context) {
		w.sink += caller(w.sink) + outer(w.sink, 30000)
	})
}

func (w *worker) formatting() {
	for i := 0; i < 100; i++ {
		w.sink += uint64(len(fmt.Sprintf("%d %s %v", i, w.keys[i], w.records[i].Score)))
	}
}
