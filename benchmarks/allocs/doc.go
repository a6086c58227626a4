// Command allocs measures what it costs a program that its allocations are profiled: by its own runtime at
// MemProfileRate=512 KiB, by pprofd reading what the runtime has counted (which it must have, so that this includes the
// former), by pprofd's probes where spans are used up (all the time, and as they are by default: in random slots, so that
// they stay within a budget), and, for comparison, by counting all calls of runtime.mallocgc with
// a uprobe of bpftrace.
//
// The target is internal/testprog/targets/allocload, one goroutine that allocates and computes in turn, so that it
// allocates 100 MB/s, 500 MB/s, or all that it can where nobody disturbs it. Windows with a profiler and windows without
// take turns strictly; each with one is divided by the mean of its two neighbours without. The median of these ratios is
// told with an interval that holds it with 95 % or more (order statistics). Attaching and detaching lie outside of the
// windows. The same is told of the bytes that are allocated in a second of the target's CPU time, which what else runs on the
// machine disturbs less. MemProfileRate is 0 in windows without.
//
// Then programs whose functions strictly take turns in allocating objects of one size are profiled by pprofd and, naively, by a
// stack at each refill of bpftrace: what each function is given is told beside.
//
// It writes lines in the format of Go benchmarks, and a table of medians with the project's goals. It needs root, bpftrace
// and a quiet machine:
//
//	go run ./benchmarks/allocs             # to standard output, 3 minutes
//	go run ./benchmarks/allocs -o FILE     # what benchmarks/results holds
package main
