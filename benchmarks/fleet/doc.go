// Command fleet measures `pprofd agent` on a host of many processes: the real program with its default configuration, but for
// its directory, its address, where told the interval of heap profiles, and that it keeps to its rates (no overhead.cpu). Root.
//
//	empty  nothing but the agent: what it costs by itself
//	idle   200 services of 20 programs that answer a request each 10 s
//	busy   the same, each of which takes half a percent of a CPU
//	churn  200 idle services and 1,800 processes that are not Go and sleep; then 50 processes start each second, four of
//	       five are not Go, one is, burns 10 ms and lives 50 ms. Then the same once more, with a relabeling rule that drops all
//	       processes, once they are found and named: what discovery costs by itself
//	short  200 Go processes one after the other that burn 45 ms and live 50 ms, at 99 Hz, in windows of 1 s
//
// The services (internal/testprog/targets/service) serve HTTP to themselves; programs are copies of it with build IDs of their
// own. They have run for a while when the agent begins. Then are measured
//
//   - the time until the agent says that it samples all of them (/metrics), and until each has a profile on disk;
//   - CPU time of the first 10 s, and its share of one core from then on (utime + stime), in all and of BPF programs in the
//     processes that they interrupt (the kernel's statistics), and how often the agent's threads go to sleep;
//   - memory: at its peak, steady (the median of the second half), and two windows after all of the services were killed;
//   - what was lost, what disk space the profiles take, how many of the short processes were counted, and how much of their
//     CPU time (wait4) is in profiles.
//
// Each situation takes less than three minutes and may be measured alone; a report takes over an earlier one:
//
//	go run ./benchmarks/fleet                              # to standard output, 9 minutes
//	go run ./benchmarks/fleet -only busy -from OLD -o NEW  # measure one again
package main
