// Command overhead measures what being profiled costs a service, and what profilers cost beside it: pprofd at 19, 99 and
// 999 Hz, runtime/pprof inside the process, perf, bpftrace, and any other that the environment names.
//
//  1. Throughput. The target is internal/testprog/targets/service, which counts the requests that it has answered. Windows
//     with a profiler and windows without take turns strictly; each window with one is divided by the mean of its two
//     neighbours without. The median of these ratios is told with an interval that holds it with 95 % or more (order
//     statistics), at 1, 10 and 200 processes. Start and end of a profiler lie outside the windows.
//  2. What that hides in its noise is computed from counted parts: BPF time of a sample (the kernel's own statistics) and
//     the time that the interrupt of a perf event takes from its CPU (a loop on one CPU, the event on and off in turn, at
//     9,999 Hz with an empty BPF program), each times the rate, and the agent's CPU time.
//  3. The agent: CPU time from start to end, memory at the beginning, in the middle and at its peak, BPF maps, bytes of a
//     sample in the ring buffer, bytes of a profile and of one of its distinct stacks on disk, time from exec to the first
//     sample; idle and busy, on 1, 10 and 200 processes of one program, and of as many distinct programs (copies with build
//     IDs of their own). The memory is laid through base + programs + processes.
//
// Another profiler is measured beside them where PEER_CMD names it. In that shell command {pid} stands for the first process,
// {pids} for all (by commas), {hz} for the frequency, {seconds} for the time. It is ended by SIGTERM if it does not end by
// itself. The OpenTelemetry profiler, for example, which profiles the whole machine:
//
//	PEER_CMD='exec ebpf-profiler -collection-agent 127.0.0.1:4317 -disable-tls -samples-per-second {hz} -tracers go'
//
// Beside more than one process all of them run at nice -10.
//
// It writes lines in the format of Go benchmarks, tables of medians with the project's goals, and a picture. It needs root,
// perf and bpftrace, and a quiet machine:
//
//	go run ./benchmarks/overhead                      # to standard output, 20 minutes
//	go run ./benchmarks/overhead -o FILE -svg FILE    # what benchmarks/results holds
package main
