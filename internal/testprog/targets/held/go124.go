//go:build go1.24

package main

import (
	"runtime"
	"time"
	"weak"
)

func init() {
	more = append(more, func() {
		c := make(chan bool)
		runtime.AddCleanup(new([32]byte), func(c chan bool) { close(c) }, c)
		runtime.GC()
		<-c
	})
	strengthen = func() {
		x := new([32]byte)
		for p := weak.Make(x); p.Value() == x; {
			time.Sleep(time.Microsecond)
		}
	}
}
