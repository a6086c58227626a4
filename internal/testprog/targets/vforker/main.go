// Command vforker starts a program as os/exec does, slowly: for a second the child has a process of its own and the memory
// of its parent. It prints "ready", the child's PID. The child ends with its parent at the latest. With -burn the child burns CPU
// meanwhile, and the parent has run for a second before. With -input that lasts until there is something to read, or nothing any more,
// instead of a second.
package main

/*
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static long elapsed_ms(struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static void start(char **argv, int burn, int input)
{
	struct timespec began;
	char line[32];

	clock_gettime(CLOCK_MONOTONIC, &began);

	if (vfork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (write(1, line, snprintf(line, sizeof(line), "ready %d\n", getpid())) > 0 && !(input && read(0, line, 1) >= 0))
			while (elapsed_ms(&began) < 1000)
				burn || usleep(1000 * 1000);
		execv(argv[0], argv);
		_exit(1);
	}
}
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"
)

func main() {
	args, burn, input := os.Args[1:], 0, 0
	if len(args) > 0 && args[0] == "-burn" {
		args, burn = args[1:], 1
	}
	if len(args) > 0 && args[0] == "-input" {
		args, input = args[1:], 1
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: vforker [-burn] [-input] program [argument...]")
		os.Exit(2)
	}
	runtime.LockOSThread() // the child's parent is a thread
	argv := (*[64]*C.char)(C.calloc(64, C.size_t(unsafe.Sizeof(uintptr(0)))))
	for i, arg := range args[:min(len(args), 63)] {
		argv[i] = C.CString(arg)
	}
	time.Sleep(time.Duration(burn) * time.Second)
	C.start(&argv[0], C.int(burn), C.int(input))
	time.Sleep(time.Minute)
}

// min: Go 1.18 has none.
func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}
