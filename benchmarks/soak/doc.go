// Command soak shows that the profiler stays as it is, however long it runs: while processes start and die 50 times a second
// it samples them, and its memory, file descriptors, goroutines and BPF map entries are drawn over time. Root.
//
//	make soak            10 minutes
//	make soak SOAK=8h    a night
//
// The profiler runs in a process of its own, with a window of 10 s, and is told of each process as soon as that has started.
// They are Go programs that live for 20 to 500 ms, of files that they share and of files that nobody had before and that are
// deleted while they run; one in five is killed, one in five executes another program, one in ten is added before its exec.
// Three processes stay all the time and set a label with another value 20 times a second.
//
// What is measured, once a second, is averaged over each window, so that the saw teeth of windows do not count. A line is
// fitted through the windows behind the warm-up (a quarter of the run, at most 3 minutes). It fails where the line's growth
// an hour exceeds its bound by more than three standard errors. The bounds are in judge.go; with each stands how much each
// process would have to leave behind to be found out.
//
// Then no more processes start, and after two windows the profiler must hold what it held before the first. In the end every
// sample that was recorded must be in one profile. At last a process loads, runs and closes a profiler 1,000 times; the same
// is measured of it.
package main
