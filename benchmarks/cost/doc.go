// Command cost measures what pprofd costs beside perf and bpftrace, on the same targets in the same run:
//
//  1. BPF time per recorded sample by depth of the stack, from the kernel's own statistics of its programs. Runs for other
//     processes count too, as they do for the host: the time of all runs is divided by the samples recorded.
//  2. The agent's CPU time, peak memory and BPF maps while it profiles two saturated threads at 99 Hz.
//  3. The time from exec to the first sample, and how long the programs take to load, with what the verifier says.
//
// Agents take turns within each round. It writes lines in the format of Go benchmarks, which benchstat reads
// (benchstat -col /agent FILE), then tables of medians, with the project's goals. It needs root, bpftrace and perf:
//
//	go run ./benchmarks/cost                        # to standard output
//	go run ./benchmarks/cost -o FILE -window 60s    # what benchmarks/results holds
//
// What user space costs a sample is a Go benchmark of package profiler; `make bench` runs both.
package main
