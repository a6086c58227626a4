//go:build go1.23

package main

import "iter"

func init() {
	more = append(more, func() {
		c := make(chan int)
		go func() { // a coroutine that waits in its sequence, and who waits for it
			next, stop := iter.Pull(func(yield func(int) bool) { yield(1); <-c })
			defer stop()
			next()
			next()
		}()
		go func() {
			next, stop := iter.Pull(func(yield func(int) bool) { yield(1) })
			next()
			defer stop()
			<-c
		}()
	})
}
