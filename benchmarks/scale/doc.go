// Command scale measures what pprofd's user space needs on machines that are not here: up to 256 CPUs, 2,000 processes,
// 200 distinct programs. It runs the pipeline of `pprofd record` as it is, on samples that were recorded before:
//
//  1. It builds programs of internal/testprog/targets, runs them one after the other, and records their samples through
//     eBPF (bpf.Recorder). The programs are stopped then, and stay until the end.
//  2. It makes as many distinct programs as a row asks for: copies of those, each with a GNU build ID of its own.
//  3. It makes a directory that looks like /proc. A simulated process has there: maps as the kernel wrote them of the
//     recorded process, with the copy's inode and path; exe, which leads to the copy; mem, which leads to the memory of
//     the recorded process; stat, with a PID above any that Linux gives.
//  4. It starts a worker: a process with a profiler.Profiler, whose targets are the simulated processes, and pipes records
//     to it. 99 times a simulated second each simulated CPU gives one sample. Its process is drawn at random, all with the
//     same chance, which is the worst case for caches; the sample is drawn from those of the recorded process.
//  5. The worker tells its CPU time and memory: after all targets were added, after the last sample, and after the last
//     profile was written.
//
// So real are the samples, the executables, the maps, and all of user space from the decoding of a record to the file.
// Simulated are the number of processes and CPUs and the times of samples. Profiles go to /dev/shm. Not measured is what only a kernel with so many
// CPUs would show: the ring buffer is a pipe here, which costs about the same (the row "reading only" is its share, with
// that of decoding). Samples come as fast as the worker takes them, except in the row pace=real.
//
// It writes lines in the format of Go benchmarks, tables of medians with the project's goals, and a picture. It needs root:
//
//	go run ./benchmarks/scale                      # to standard output
//	go run ./benchmarks/scale -o FILE -svg FILE    # what benchmarks/results holds
package main
