//go:build go1.21

package main

import (
	"runtime"
	_ "unsafe" // for linkname
)

//go:linkname frameStartLine runtime/pprof.runtime_FrameStartLine
func frameStartLine(f *runtime.Frame) int

//go:linkname frameSymbolName runtime/pprof.runtime_FrameSymbolName
func frameSymbolName(f *runtime.Frame) string

func toFrame(f *runtime.Frame) frame {
	return frame{frameSymbolName(f), f.File, f.Line, frameStartLine(f)}
}
