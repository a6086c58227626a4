// Package cpuclock reads exact CPU clocks, and prints what a program knows of its own CPU time.
package cpuclock

import (
	"encoding/json"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

const clockThreadCPU = 3 // CLOCK_THREAD_CPUTIME_ID, include/uapi/linux/time.h

// Thread is the CPU time of the calling thread; call it between runtime.LockOSThread and UnlockOSThread.
func Thread() time.Duration {
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPU, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic(errno)
	}
	return time.Duration(ts.Nano())
}

// Process is user plus system time of the process.
func Process() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// Path is one path of execution with a known stack, innermost function first.
type Path struct {
	CPUNS int64    `json:"cpu_ns"`
	Stack []string `json:"stack"`
}

// Print writes the line "truth {...}".
func Print(paths map[string]Path, began time.Time) {
	out, err := json.Marshal(struct {
		Paths    map[string]Path `json:"paths"`
		RusageNS int64           `json:"rusage_ns"`
		WallNS   int64           `json:"wall_ns"`
	}{paths, int64(Process()), int64(time.Since(began))})
	if err != nil {
		panic(err)
	}
	fmt.Printf("truth %s\n", out)
}
