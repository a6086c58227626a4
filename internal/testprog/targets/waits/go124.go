//go:build go1.24

package main

import "runtime"

func init() {
	more = append(more, func() {
		x := new([32]byte)
		runtime.AddCleanup(x, func(int) { <-make(chan int) }, 1)
	})
}
