//go:build !cgo
// +build !cgo

package main

import "time"

// throughC is for programs with C.
func throughC(time.Duration) {}
