// Command vforker starts a program as os/exec does, slowly: for a second the child has a process of its own and the memory
// of its parent. It prints "ready", the child's PID. The child ends with its parent at the latest.
package main

/*
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static void start(char **argv)
{
	char line[32];

	if (vfork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (write(1, line, snprintf(line, sizeof(line), "ready %d\n", getpid())) > 0)
			usleep(1000 * 1000);
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
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: vforker program [argument...]")
		os.Exit(2)
	}
	runtime.LockOSThread() // the child's parent is a thread
	argv := (*[64]*C.char)(C.calloc(64, C.size_t(unsafe.Sizeof(uintptr(0)))))
	for i, arg := range os.Args[1:min(len(os.Args), 64)] {
		argv[i] = C.CString(arg)
	}
	C.start(&argv[0])
	time.Sleep(time.Minute)
}

// min: Go 1.18 has none.
func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}
