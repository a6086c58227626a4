package main

// #include <pthread.h>
// #include <unistd.h>
// extern int goWait(int);
// static int c_call(int n) { return goWait(n) + 1; }
// static void c_sleep(void) { for (;;) pause(); }
// static void *c_main(void *arg) { goWait(2); return arg; }
// static int c_thread(void) { pthread_t t; return pthread_create(&t, 0, c_main, 0); }
import "C"

import "runtime"

func init() {
	more = append(more, func() {
		go C.c_sleep()
		go func() {
			runtime.LockOSThread()
			C.c_sleep()
		}()
		go C.c_call(1) // Go, C, Go
		if C.c_thread() != 0 {
			panic("pthread_create")
		}
	})
}

//export goWait
func goWait(n C.int) C.int {
	if n == 1 {
		go func() { <-make(chan int) }()
	}
	<-make(chan int)
	return n
}
