//go:build go1.25

package main

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func init() {
	os.Setenv("GODEBUG", "asynctimerchan=0,"+os.Getenv("GODEBUG")) // which bubbles need, and the language version of the module has not
	more = append(more, func() {
		all := func(_, _ string) (bool, error) { return true, nil }
		inside := make(chan bool)
		go testing.Main(all, []testing.InternalTest{{Name: "bubbles", F: func(t *testing.T) {
			go bubble(t)
			inside <- true
			busyBubble(t)
		}}}, nil, nil)
		<-inside
	})
}

// bubble whose goroutines wait for each other and for one in a system call, so that its time stands still.
func bubble(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		c := make(chan int)
		var wg sync.WaitGroup
		wg.Add(1)
		go func() { <-c }()
		go func() { c <- <-c }()
		go func() { select {} }()
		go time.Sleep(time.Hour)
		go wg.Wait()
		go func() { _ = syscall.Nanosleep(&syscall.Timespec{Sec: 3600}, nil) }()
		synctest.Wait()
	})
}

// busyBubble waits for what is outside.
func busyBubble(t *testing.T) {
	var mu sync.Mutex
	mu.Lock()
	synctest.Test(t, func(*testing.T) {
		go mu.Lock()
		time.Sleep(time.Hour)
	})
}
