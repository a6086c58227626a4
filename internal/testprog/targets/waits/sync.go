package main

import (
	"context"
	"io"
	"reflect"
	"runtime"
	"sync"
	"time"
)

// channels: receiving, sending, selecting; with buffers, without, nil.
func channels() {
	full := make(chan int, 2)
	full <- 1
	full <- 2
	never := make(chan int)
	var none chan int
	go func() { <-never }()
	go func() { _, _ = <-never }()
	go func() { never2 := make(chan int); never2 <- 1 }()
	go func() { full <- 3 }()
	go func() { <-none }()
	go func() { none <- 1 }()
	go func() { select {} }()
	go func() {
		select {
		case <-never:
		case full <- 4:
		case none <- 5:
		}
	}()
	go func() {
		for range never {
		}
	}()
	for i := 0; i < 10; i++ {
		go receive(never) // all the same
	}
	go func() {
		reflect.Select([]reflect.SelectCase{
			{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(never)},
			{Dir: reflect.SelectSend, Chan: reflect.ValueOf(full), Send: reflect.ValueOf(1)},
		})
	}()
	go func() { reflect.ValueOf(never).Recv() }()
	go reflect.ValueOf(receive).Call([]reflect.Value{reflect.ValueOf(never)})
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		<-ctx.Done()
	}()
}

func receive(c chan int) int { return <-c }

// locks: of package sync.
func locks() {
	var mu sync.Mutex
	mu.Lock()
	go func() { mu.Lock() }()
	go func() {
		defer mu.Unlock()
		mu.Lock()
	}()
	var written, read sync.RWMutex
	written.Lock()
	read.RLock()
	go func() { written.RLock() }()
	go func() { written.Lock() }()
	go func() { read.Lock() }()
	var wg sync.WaitGroup
	wg.Add(1)
	go wg.Wait()
	go func() { wg.Wait() }()
	cond := sync.NewCond(new(sync.Mutex))
	go func() {
		cond.L.Lock()
		cond.Wait()
	}()
	var once sync.Once
	go once.Do(func() { select {} })
	time.Sleep(10 * time.Millisecond)
	go once.Do(func() {})
	r, w := io.Pipe()
	go func() { _, _ = r.Read(make([]byte, 1)) }()
	_, w2 := io.Pipe()
	go func() { _, _ = w2.Write([]byte("x")) }()
	runtime.KeepAlive(w)
}

// timers: sleeping, and what a timer starts.
func timers() {
	go time.Sleep(time.Hour)
	go func() { <-time.After(time.Hour) }()
	go func() {
		t := time.NewTicker(time.Hour)
		<-t.C
	}()
	go func() {
		select {
		case <-time.After(time.Hour):
		case <-make(chan int):
		}
	}()
	time.AfterFunc(time.Millisecond, func() { <-make(chan int) })
}
