package main

// extern int goCallback(int);
// static int gtruth_call(int a) { return goCallback(a) + 1; }
import "C"

//export goCallback
func goCallback(a C.int) C.int { return a + 1 }

func callC() {
	if C.gtruth_call(1) != 3 {
		panic("cgo")
	}
}
