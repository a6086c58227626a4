// Command contend blocks at known places with its runtime's block and mutex profiles on, then keeps still, so that what its
// runtime knows about it stays as it is.
//
// It prints "ready" once it is still, and then writes what runtime/pprof says of it, the profiles block and mutex, into the
// directory that each line of its standard input names, and prints "written" and the line. It lives for -life.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

func main() {
	block := flag.Int("block", 1, "argument of SetBlockProfileRate")
	mutex := flag.Int("mutex", 1, "argument of SetMutexProfileFraction")
	off := flag.Bool("off", false, "switch both off once it is still")
	busy := flag.Bool("busy", false, "go on blocking instead of keeping still")
	life := flag.Duration("life", time.Minute, "how long to live when all is told")
	many := flag.Int("many", 0, "block at this many further places")
	dir := flag.String("dir", "", "write the profiles here before \"ready\"")
	flag.Parse()
	runtime.GOMAXPROCS(2)
	runtime.SetBlockProfileRate(*block)
	runtime.SetMutexProfileFraction(*mutex)
	places()
	for i := 0; i < *many; i++ {
		path(i, 17)
	}
	if *off {
		runtime.SetBlockProfileRate(0)
		runtime.SetMutexProfileFraction(0)
	}
	if *dir != "" {
		check(write(*dir))
	}
	go serve()
	fmt.Println("ready")
	for end := time.Now().Add(*life); *busy && time.Now().Before(end); {
		places()
	}
	time.Sleep(*life)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve reads with a system call of its own, which is no blocking that counts.
func serve() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		check(write(in.Text()))
		fmt.Println("written", in.Text())
	}
}

func write(dir string) error {
	for _, name := range []string{"block", "mutex"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := pprof.Lookup(name).WriteTo(f, 0); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// hold is how long somebody has to wait.
const hold = time.Millisecond

// places blocks in all ways that count.
func places() {
	for i := 0; i < 5; i++ {
		locked(hold)
		shared(hold)
		received(hold)
		sent(hold)
		selected(hold)
		waited(hold)
		signalled(hold)
		recurse(i*10, hold)
		inlined(hold)
		func() { locked(2 * hold) }() // a closure
		generic[int](hold)
		generic[string](hold)
		worker(7).Run(hold)
		runner(worker(8)).Run(hold)
		call(&group{})
		throughC(hold)
	}
}

// locked has another goroutine wait for a mutex.
//
//go:noinline
func locked(d time.Duration) {
	var mu sync.Mutex
	mu.Lock()
	done := make(chan bool, 1)
	go func() {
		mu.Lock()
		mu.Unlock()
		done <- true
	}()
	time.Sleep(d)
	mu.Unlock()
	<-done
}

// shared has readers wait for a writer, and a writer for readers.
//
//go:noinline
func shared(d time.Duration) {
	var mu sync.RWMutex
	var all sync.WaitGroup
	mu.Lock()
	for i := 0; i < 3; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			mu.RLock()
			time.Sleep(d)
			mu.RUnlock()
		}()
	}
	time.Sleep(d)
	mu.Unlock()
	runtime.Gosched()
	mu.Lock()
	mu.Unlock()
	all.Wait()
}

//go:noinline
func received(d time.Duration) {
	c := make(chan int)
	go func() {
		time.Sleep(d)
		c <- 1
	}()
	<-c
	go func() {
		time.Sleep(d)
		close(c)
	}()
	for range c {
	}
}

//go:noinline
func sent(d time.Duration) {
	c := make(chan int)
	go func() {
		time.Sleep(d)
		<-c
	}()
	c <- 1
}

//go:noinline
func selected(d time.Duration) {
	c, other := make(chan int), make(chan int)
	go func() {
		time.Sleep(d)
		c <- 1
	}()
	select {
	case <-c:
	case <-other:
	}
}

//go:noinline
func waited(d time.Duration) {
	var all sync.WaitGroup
	all.Add(1)
	go func() {
		time.Sleep(d)
		all.Done()
	}()
	all.Wait()
}

//go:noinline
func signalled(d time.Duration) {
	var mu sync.Mutex
	c := sync.NewCond(&mu)
	there := false
	go func() {
		time.Sleep(d)
		mu.Lock()
		there = true
		mu.Unlock()
		c.Broadcast()
	}()
	mu.Lock()
	for !there {
		c.Wait()
	}
	mu.Unlock()
}

//go:noinline
func recurse(n int, d time.Duration) int {
	if n == 0 {
		locked(d)
		received(d)
		return 0
	}
	return recurse(n-1, d) + 1
}

// inlined is expanded into its caller, with what it calls.
func inlined(d time.Duration) { inner(d) }

func inner(d time.Duration) {
	c := make(chan int)
	later(c, d)
	<-c
}

//go:noinline
func later(c chan int, d time.Duration) {
	go func() {
		time.Sleep(d)
		c <- 1
	}()
}

//go:noinline
func generic[T any](d time.Duration) {
	var zero T
	c := make(chan T)
	go func() {
		time.Sleep(d)
		c <- zero
	}()
	<-c
}

// worker is called directly and through an interface, where the compiler puts a wrapper.
type worker int

type runner interface{ Run(time.Duration) }

//go:noinline
func (w worker) Run(d time.Duration) { locked(d) }

// group has a method of what it embeds.
type group struct{ sync.Mutex }

type locker interface {
	Lock()
	Unlock()
}

//go:noinline
func call(l locker) {
	l.Lock()
	done := make(chan bool)
	go func() {
		l.Lock()
		l.Unlock()
		close(done)
	}()
	time.Sleep(hold)
	l.Unlock()
	<-done
}

// path blocks under a stack that spells the bits of i.
//
//go:noinline
func path(i, bits int) int {
	switch {
	case bits == 0:
		c := make(chan int)
		go func() { c <- 1 }()
		return <-c
	case i>>(bits-1)&1 == 0:
		return path(i, bits-1) + 1
	default:
		return path(i, bits-1) + 2
	}
}
