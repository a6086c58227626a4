package main

// #include <signal.h>
// static void c_segv(volatile int *p) { *p = 1; }
// static void c_abort(void) { __builtin_trap(); }
import "C"

func init() {
	modes["segv"] = segv
	modes["trap"] = func() { C.c_abort() }
}

//go:noinline
func segv() { C.c_segv(nil) }
