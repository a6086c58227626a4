// Command wall measures wall-clock profiles: how right they are, and what they cost.
//
// Two profilers sample a process in turns: `pprofd record -t wall` from outside, as it comes; and github.com/felixge/fgprof in the
// process itself, which asks the runtime for all stacks 99 times a second.
//
// Shares: a program (internal/testprog/targets/shares) has four goroutines that wait for a channel for 30 % of their time and for a mutex for
// 50 %, and compute in the rest, each in a rhythm of its own, and says after each window what they have done in truth; beside them are so many
// idle goroutines. What a profile is off by is the largest difference to that of a share: of a window, which is a matter of chance, too, and of the mean
// of all windows.
//
// Cost: a program (internal/testprog/targets/crowd) has so many goroutines that wait, and one that looks at the clock all the time. How often it does,
// in proportion to the window before, in which nobody sampled, and the longest time between two looks are what it loses.
//
// The CPU time of fgprof is the program's: what that takes besides its computing, compared with nobody. That of pprofd is all of its process's,
// its start included, and what it takes from the program.
//
// go run ./benchmarks/wall writes to standard output; it takes eight minutes. Root, for the part of the CPU profile.
package main
