// Command governor shows that internal/governor keeps a stated budget.
//
//	go run ./benchmarks/governor simulate          # seconds; anywhere
//	go run ./benchmarks/governor run               # minutes; root, a quiet machine
//	go run ./benchmarks/governor record FILE       # a trace of this machine's load, to be committed in traces
//
// simulate drives the governor by a model of a host (host.go: what ticks, samples, readings, traps and the agent itself cost,
// and BPF's token bucket) through load traces: synthetic ones (step, ramp, spike, idle to busy, 2 to 256 CPUs) and recorded
// ones (a Go build, an HTTP service), on the machine of the recording and on one that is eight times as large. It counts the
// windows that cost more than the budget, and the longest row of windows that cost less than half of it although the rate could
// have been higher. Each trace is drawn: load, rate, cost beside the budget. The tests hold many more runs to that.
//
// run starts `pprofd agent` with a small budget and short windows, and services (internal/testprog/targets/service) whose load
// changes by steps: nothing, one busy core, two with 400 goroutines, six processes' worth of demand on them, nothing. Behind
// the end of each window of the governor it takes
//
//   - what the agent says of the window (/metrics): rate, mode, cost, budget;
//   - the same from outside: CPU time of the agent's process (its CPU clock), run time of its BPF programs (the kernel's
//     statistics), interrupts at the rate times what this program measured that one takes from its CPU (a loop, with an
//     event on and off in turn).
//
// Both are compared with the budget, and drawn. The windows begin when the agent has started: loading BPF programs, the
// kernel's symbols, the first look at all processes take a fixed time, which is told of beside them.
package main
