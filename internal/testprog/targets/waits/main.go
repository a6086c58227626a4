// Command waits has goroutines that wait in all ways there are, and says by itself what they do.
//
//	waits FILE      writes what /debug/pprof/goroutine?debug=2 would say to FILE, then prints
//	label GOID JSON one line for each goroutine that has set labels of its own
//	ready           and goes on waiting for ever
//
// What differs between Go versions lies in files of its own.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: waits FILE")
		os.Exit(2)
	}
	if os.Args[1] == asleep {
		time.Sleep(time.Hour)
		return
	}
	runtime.GOMAXPROCS(1) // so that some are runnable at any time
	channels()
	locks()
	timers()
	files()
	network()
	systemCalls()
	panics()
	stacks()
	labelled()
	for _, start := range more {
		start()
	}
	time.Sleep(300 * time.Millisecond) // all of them park
	runtime.GC()                       // which notes that they wait
	runtime.GC()
	time.Sleep(100 * time.Millisecond)
	report(os.Args[1])
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

// asleep in the place of FILE makes a child that others wait for.
const asleep = "-asleep"

// more kinds of waiting, which only some versions and ways to build have.
var more []func()

// report writes what the runtime says of its goroutines.
func report(path string) {
	f, err := os.Create(path)
	check(err)
	check(pprof.Lookup("goroutine").WriteTo(f, 2))
	check(f.Close())
	truth.Lock()
	defer truth.Unlock()
	for id, l := range truth.labels {
		text, err := json.Marshal(l)
		check(err)
		fmt.Printf("label %d %s\n", id, text)
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// truth is what goroutines have said of themselves.
var truth = struct {
	sync.Mutex
	labels map[int]map[string]string
}{labels: make(map[int]map[string]string)}

// labelled starts goroutines with labels: one, many, inherited ones.
func labelled() {
	with := func(n int, f func()) {
		labels := make(map[string]string)
		var list []string
		for i := 0; i < n; i++ {
			k, v := "key"+strconv.Itoa(i), "value "+strconv.Itoa(i*n)
			labels[k] = v
			list = append(list, k, v)
		}
		go pprof.Do(context.Background(), pprof.Labels(list...), func(context.Context) {
			said(labels)
			f()
		})
	}
	with(1, func() { <-make(chan int) })
	with(8, func() { select {} })
	with(9, func() { <-make(chan int) })
	with(30, func() {
		labels := make(map[string]string)
		for i := 0; i < 30; i++ {
			labels["key"+strconv.Itoa(i)] = "value " + strconv.Itoa(i*30)
		}
		go func() { // inherits
			said(labels)
			<-make(chan int)
		}()
		select {}
	})
	with(2, func() { // labels upon labels
		labels := map[string]string{"key0": "value 0", "key1": "other", "key2": "more"}
		pprof.Do(pprof.WithLabels(context.Background(), pprof.Labels("key0", "value 0", "key1", "value 2")),
			pprof.Labels("key1", "other", "key2", "more"), func(context.Context) {
				said(labels)
				<-make(chan int)
			})
	})
}

// said notes the labels of the current goroutine.
func said(labels map[string]string) {
	truth.Lock()
	defer truth.Unlock()
	truth.labels[goid()] = labels
}

// goid reads the goroutine's id from its own stack trace.
func goid() int {
	var buf [64]byte
	fields := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	n, err := strconv.Atoi(string(fields[1]))
	check(err)
	return n
}
