package main

const recordLong = `Record samples running Go processes, or a program that it starts, and writes what runtime/pprof would have written.

Which processes: -p, --comm and --exe add up; --comm and --exe take shell patterns (* does not match /), look
once, at the start, and leave out processes that are not Go.

Kinds: cpu is sampled by the kernel. heap (what is in use, and all that was ever allocated, by where) and allocs (what is
allocated during -d) are read from the records that the process's own runtime keeps, as /debug/pprof/heap would show them:
up to the last garbage collection but one, or with --include-unpublished up to now. Nothing is traced for them. A program
that nowhere reads its memory profile is linked without; record says so. block (where goroutines waited for channels, mutexes
and the like) and mutex (who held the mutexes that others waited for) are read in the same way, of programs that call
runtime.SetBlockProfileRate and runtime.SetMutexProfileFraction, as /debug/pprof/block and /debug/pprof/mutex would show them:
with -d what happened meanwhile, else all since the program began. heap, block, mutex and goroutine do not wait, unless -d is given.
Where a program has block or mutex switched off, they are estimated from what its goroutines are seen to wait for; the profile says so.
Of a program without a memory profile, or with --alloc-source probe, allocs comes from probes (uprobes) in the runtime's
allocator, for as long as the recording lasts.

wall is where time passes for each goroutine: labels say in which state (running, runnable, waiting, syscall) and for which
reason it waits, in the words of the process's own runtime ("chan receive", "sync.Mutex.Lock"). What runs is the CPU profile; the rest is seen
in snapshots at random moments, --wall-frequency of them a second for up to 1,000 goroutines, fewer for more. Nothing is
stopped for them. --state and --reason choose; where they leave out running, nothing is sampled by the kernel.
goroutine is what all goroutines do at one moment, as /debug/pprof/goroutine would show it, at once; pprofd dump shows it as text.
The tables of goroutine, wall, block and mutex have the functions that wait, without those of runtime, sync, net and the like that
they wait in; the files have all.

With --on-oom, heap waits for the kernel to kill a process for lack of memory, and writes its heap of that moment, or, where
its memory was gone too soon, of shortly before: the heap is read again and again, the more often the nearer the process
is to its memory limit. The profile's comments say which. It holds also what garbage collections had not yet come to.
Record ends with the last of the processes, after -d, or with Ctrl-C; if none was killed, it writes nothing and exits with 3.

With --core, heap, block, mutex and goroutine are those of a core file, as gcore and the kernel write them: what the process that left it had at
that moment. What was mapped of files is read from those, which have to be the same still; the profile's time is now.

Where to: one profile goes to the file -o, by default KIND.pb.gz. Several kinds or processes go to the directory -o, by
default pprofd-TIME (UTC), as COMM-PID.KIND.pb.gz. -o - is standard output. Under sudo the files belong to
the user who called it.

With --pyroscope, --parca or --otlp profiles are sent to servers, too, once their files are written. Where that fails for
--send-timeout, record says so, and exits with 1; the files remain.

A program behind -- is sampled from its exec to its exit. With -d the recording ends earlier, the profile is
written then, and record goes on to wait for the program. Its exit status becomes record's: 128+n where signal n
ended it, 127 where it cannot be found, 126 where it cannot be executed. Signals that record gets are passed on to
it. Under sudo it runs as the user who called it, unless --as-root. The processes that it starts are not sampled;
where it executes another program in its place, as env(1) does, that one is.

Ctrl-C (or SIGTERM) ends a recording early and writes what there is; a second one aborts. With a program behind
-- the first is the program's own, and record ends with it; the second ends the recording, and the third aborts.`

const recordExample = `  sudo pprofd record -p 4242                            # 10 s of CPU at 99 Hz -> cpu.pb.gz
  sudo pprofd record -p 4242 -d 30s -F 199 -o x.pb.gz
  sudo pprofd record -d 30s -o out.pb.gz -- ./server -flag
  sudo pprofd record --comm api --exe '/srv/*'          # one profile each, in a directory
  sudo pprofd record --comm api --merge -o all.pb.gz    # one for all
  sudo pprofd record -p 4242 -t heap                    # live heap by allocation site, at once
  sudo pprofd record --comm api -t heap --on-oom        # the heaps of those that the kernel kills for lack of memory
  sudo pprofd record -p 4242 -t allocs,cpu -d 30s       # what is allocated in 30 s, and CPU: a file each
  sudo pprofd record -p 4242 -t wall                    # where goroutines spend their time
  sudo pprofd record -p 4242 -t wall --state waiting --reason 'chan receive'
  sudo pprofd record -p 4242 -t block,mutex -d 30s      # where goroutines waited in 30 s, and for whom
  pprofd record --core core.4242 -t heap                # the heap of a process that has left a core file
  sudo pprofd record -p 4242 --pgo                      # default.pgo, for go build -pgo
  sudo pprofd record -p 4242 -d 1m --max-overhead 0.5%  # as many samples as fit
  sudo pprofd record -p 4242 --pyroscope http://localhost:4040 --parca localhost:7070 --label env=test
  sudo pprofd record -p 4242 --format folded -o - | flamegraph.pl > cpu.svg`
