//go:build go1.25

package main

import (
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func init() {
	more = append(more, func() {
		testing.Init()
		all := func(_, _ string) (bool, error) { return true, nil }
		go testing.RunTests(all, []testing.InternalTest{{Name: "bubble", F: bubble}})
		go testing.RunTests(all, []testing.InternalTest{{Name: "busy", F: busyBubble}})
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
