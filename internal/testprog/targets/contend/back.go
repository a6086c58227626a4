//go:build cgo
// +build cgo

package main

import "C"

import "time"

//export back
func back(nanoseconds C.long) { locked(time.Duration(nanoseconds)) }
