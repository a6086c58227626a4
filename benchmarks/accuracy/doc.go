// Command accuracy measures how right pprofd's profiles are, for each Go version and way to build a program.
//
// A row of the board is the program mixed of internal/testprog, built by one Go version in one mode (default, stripped, pie,
// cgo with the external linker, trimpath, noinline, race). A row is measured so:
//
//  1. The program takes CPU profiles of itself by runtime/pprof, in windows one after the other: W1, W2, ... It runs
//     with GODEBUG=asyncpreemptoff=1, since preemption by signals disturbs its own profiles, not pprofd's.
//  2. Within each window Wi pprofd's own pipeline profiles the same process, at 99 Hz.
//  3. Wi judges both that profile and W(i+1), by [testprog.Compare]. What W(i+1) reaches is the ceiling: stacks that
//     are right but rare are not in every window.
//
// The goal of a row: the median, over the windows, of pprofd's share of exact stacks less the ceiling is at least
// -1 point. A row that misses it is measured once more, and the windows of both times count. The heaviest misses say why.
//
// Units of the lines, each of one window:
//
//	stacks-%       share of samples whose whole stack of function names, inlined ones included, stands in the truth
//	ceiling-%      the same of W(i+1); diff-pt is the difference
//	mix-diff-pt    as diff-pt, with each path of the workload weighed as in W(i+1): the process's own profile has less than
//	               its part of short bursts, whose stacks are rare; see mix.go
//	any-%          as stacks-%, but against all windows of the row except W(i+1): right but rare stacks are no misses
//	any-ceiling-%  the same of W(i+1)
//	leafcaller-%   share of samples whose innermost function and its caller stand in the truth
//	lines-%        share of call sites (caller, line, callee) that stand in the truth, among right stacks
//	labels-%       share of samples with right labels, among right stacks
//	flat, cum      total-variation distance of the distributions over leafs and over functions: 0 same, 1 disjoint;
//	               flat-ceiling and cum-ceiling are W(i+1)'s
//	deep-%         share of samples in the recursion, 200 calls deep, with all frames: the runtime cuts at 64
//	cpu-err-%      sum of the samples against the process's CPU time, which the kernel's clock of the process tells
//	out-%          share of samples that are not compared since the truth cannot have them: in signal handlers, in sysmon, and, in
//	               the mode race, in the race detector's C code, which the runtime does not walk
//	bad-%          share of stacks that end in [broken] or [truncated]; lost-%: of samples that were lost
//
// On five rows perf and bpftrace take turns with pprofd, each in windows of its own. What they name is taken as it is;
// they are not judged by lines and labels, which they do not have.
//
// Rows that were measured are kept in a state file and not measured again by the same build of this program (-any-build: by
// any), unless it was built from a changed tree. It needs root; rows with peers need perf and bpftrace:
//
//	go run ./benchmarks/accuracy                    # all rows, an hour
//	go run ./benchmarks/accuracy -rows 'go1\.22.*' -window 2s
package main
