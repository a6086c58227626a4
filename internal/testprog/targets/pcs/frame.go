//go:build !go1.20

package main

import "runtime"

func toFrame(f *runtime.Frame) frame {
	return frame{f.Function, f.File, f.Line, 0}
}
