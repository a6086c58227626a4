package main

import (
	_ "runtime/pprof" // whose names these are
	_ "unsafe"        // for linkname
)

//go:linkname expandFinalInlineFrame runtime/pprof.runtime_expandFinalInlineFrame
func expandFinalInlineFrame(stk []uintptr) []uintptr
