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
package main
