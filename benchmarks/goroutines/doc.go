// Command goroutines measures what it costs to see all goroutines of a process: time, memory, and for how long the process is held up.
//
// The process (internal/testprog/targets/crowd) has so many goroutines that wait, and one that looks at the clock all the time:
// the longest time between two looks is what who asks makes it wait. In turns, each round: nobody asks, for half a second;
// `pprofd dump` (text, and a profile by -o); the process's own /debug/pprof/goroutine, with debug=0 and debug=2; and `dlv attach`,
// which prints all goroutines, if dlv is in PATH and the goroutines are no more than 10,000.
//
// go run ./benchmarks/goroutines writes to standard output; it takes three minutes. Root, or the right to read other processes.
package main
