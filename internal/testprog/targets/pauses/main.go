// Command pauses has goroutines that wait for mutexes and channels for 50 µs, 1 ms, 20 ms and 200 ms at a time, each in a function of its own,
// and knows how often and for how long they did. With -brief there are further ones, that wait for channels for some 10 µs.
//
// It prints "ready", then for each line of its standard input "mark", the line, and a JSON object: by function how many waits have ended
// and how long they were together, ns. With -dir it writes its own block and mutex profiles there, beside each mark.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// waiter waits for its partner, for so long each time, and is idle for so long in between.
type waiter struct {
	name        string
	wait        func(w *waiter)
	mutex       bool
	span, pause time.Duration
	begin, c    chan bool
	done        chan bool
	mu          sync.Mutex
	count, ns   int64
}

func waiters() []*waiter {
	return []*waiter{
		{name: "receive50us", wait: receive50us, span: 50 * time.Microsecond, pause: time.Millisecond},
		{name: "receive1ms", wait: receive1ms, span: time.Millisecond, pause: time.Millisecond},
		{name: "receive20ms", wait: receive20ms, span: 20 * time.Millisecond, pause: 5 * time.Millisecond},
		{name: "receive200ms", wait: receive200ms, span: 200 * time.Millisecond, pause: 50 * time.Millisecond},
		{name: "lock50us", wait: lock50us, mutex: true, span: 50 * time.Microsecond, pause: time.Millisecond},
		{name: "lock1ms", wait: lock1ms, mutex: true, span: time.Millisecond, pause: time.Millisecond},
		{name: "lock20ms", wait: lock20ms, mutex: true, span: 20 * time.Millisecond, pause: 5 * time.Millisecond},
		{name: "lock200ms", wait: lock200ms, mutex: true, span: 200 * time.Millisecond, pause: 50 * time.Millisecond},
	}
}

func main() {
	rate := flag.Int("rate", 0, "argument of SetBlockProfileRate and SetMutexProfileFraction")
	dir := flag.String("dir", "", "write block and mutex profiles here with each mark")
	life := flag.Duration("life", 5*time.Minute, "how long to live when nobody can ask any more")
	brief := flag.Int("brief", 0, "so many further goroutines, whose waits are brief")
	flag.Parse()
	runtime.SetBlockProfileRate(*rate)
	runtime.SetMutexProfileFraction(*rate)
	all := waiters()
	for i := 0; i < *brief; i++ {
		all = append(all, &waiter{name: "receiveBriefly", wait: receiveBriefly, span: 10 * time.Microsecond, pause: time.Millisecond})
	}
	for _, w := range all {
		w.begin, w.c, w.done = make(chan bool), make(chan bool), make(chan bool, 1)
		go w.run()
		go w.partner()
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if *dir != "" {
			write(*dir, in.Text())
		}
		mark(in.Text(), all)
	}
	time.Sleep(*life)
}

// run waits, and counts it.
func (w *waiter) run() {
	for range w.begin {
		began := time.Now()
		w.wait(w)
		atomic.AddInt64(&w.ns, int64(time.Since(began)))
		atomic.AddInt64(&w.count, 1)
		w.done <- true
		time.Sleep(w.pause)
	}
}

// partner has its waiter wait.
func (w *waiter) partner() {
	for {
		if w.mutex {
			w.mu.Lock()
		}
		w.begin <- true
		w.sleep()
		if w.mutex {
			w.mu.Unlock()
		} else {
			w.c <- true
		}
		<-w.done
	}
}

// sleep for the span: what is short by the kernel's timer, since the runtime's may be as coarse as 1 ms; for what is shorter than that can be it runs.
func (w *waiter) sleep() {
	switch {
	case w.span >= time.Millisecond:
		time.Sleep(w.span)
		return
	case w.span < 50*time.Microsecond:
		runtime.Gosched() // its waiter comes first
		for began := time.Now(); time.Since(began) < w.span; {
		}
		return
	}
	ts := syscall.NsecToTimespec(int64(w.span))
	_ = syscall.Nanosleep(&ts, nil)
}

//go:noinline
func receiveBriefly(w *waiter) { <-w.c }

//go:noinline
func receive50us(w *waiter) { <-w.c }

//go:noinline
func receive1ms(w *waiter) { <-w.c }

//go:noinline
func receive20ms(w *waiter) { <-w.c }

//go:noinline
func receive200ms(w *waiter) { <-w.c }

//go:noinline
func lock50us(w *waiter) {
	w.mu.Lock()
	w.mu.Unlock()
}

//go:noinline
func lock1ms(w *waiter) {
	w.mu.Lock()
	w.mu.Unlock()
}

//go:noinline
func lock20ms(w *waiter) {
	w.mu.Lock()
	w.mu.Unlock()
}

//go:noinline
func lock200ms(w *waiter) {
	w.mu.Lock()
	w.mu.Unlock()
}

// mark tells what has come to an end so far.
func mark(name string, all []*waiter) {
	type done struct{ Count, NS int64 }
	out := map[string]done{}
	for _, w := range all {
		sum := out[w.name]
		out[w.name] = done{sum.Count + atomic.LoadInt64(&w.count), sum.NS + atomic.LoadInt64(&w.ns)}
	}
	line, err := json.Marshal(out)
	check(err)
	fmt.Printf("mark %s %s\n", name, line)
}

func write(dir, name string) {
	for _, kind := range []string{"block", "mutex"} {
		f, err := os.Create(filepath.Join(dir, name+"."+kind))
		check(err)
		check(pprof.Lookup(kind).WriteTo(f, 0))
		check(f.Close())
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
