//go:build go1.20 && !go1.21

package main

import (
	"runtime"
	_ "unsafe" // for linkname
)

//go:linkname frameStartLine runtime/pprof.runtime_FrameStartLine
func frameStartLine(f *runtime.Frame) int

func toFrame(f *runtime.Frame) frame {
	return frame{f.Function, f.File, f.Line, frameStartLine(f)}
}
