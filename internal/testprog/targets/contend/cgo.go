//go:build cgo
// +build cgo

package main

/*
extern void back(long nanoseconds);
static void through(long nanoseconds) { back(nanoseconds); }
*/
import "C"

import "time"

// throughC blocks in a function that C calls.
//
//go:noinline
func throughC(d time.Duration) { C.through(C.long(d)) }
