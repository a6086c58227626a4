package top

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/profiler"
)

// Cost is what watching takes, as shares of one CPU since the snapshot before.
type Cost struct {
	CPU, BPF float64 // of this process; of the programs in the kernel
	RSS      uint64  // bytes of this process
	Measured bool    // there was a snapshot before
}

// cost measures it.
type cost struct {
	profiler *profiler.Profiler
	at       time.Time
	cpu, bpf time.Duration
}

func (c *cost) begin(p *profiler.Profiler) {
	c.profiler = p
	c.at, c.cpu, c.bpf = time.Now(), ownCPU(), c.inKernel()
}

// inKernel is what the BPF programs have taken.
func (c *cost) inKernel() time.Duration {
	s, err := c.profiler.Cost()
	if err != nil {
		return c.bpf // the line is about the difference
	}
	return s.BPF
}

// read measures what was spent since the last time.
func (c *cost) read(now time.Time) Cost {
	cpu, inKernel, passed := ownCPU(), c.inKernel(), now.Sub(c.at)
	out := Cost{CPU: ratio(cpu-c.cpu, passed), BPF: ratio(inKernel-c.bpf, passed), RSS: rss("/proc/self/statm"), Measured: passed > 100*time.Millisecond}
	if out.Measured {
		c.at, c.cpu, c.bpf = now, cpu, inKernel
	}
	return out
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss reads the resident memory from a statm file, in bytes; 0: not known.
func rss(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// Use is what the kernel says that the process uses.
type Use struct {
	Comm      string
	User, Sys float64 // shares of one CPU since the snapshot before
	Threads   int
	RSS       uint64
	Age       time.Duration
}

// usage measures it.
type usage struct {
	proc      procfs.Proc
	at        time.Time
	user, sys uint64
	last      Use
}

// ticks a second that /proc counts in, on every supported architecture.
const userHZ = 100

func (u *usage) begin() error {
	stat, err := u.proc.Stat()
	if err != nil {
		return err
	}
	u.at, u.user, u.sys = time.Now(), stat.UTime, stat.STime
	u.last = Use{Comm: stat.Comm}
	return nil
}

// read measures what was used since the last time; what cannot be read is as it was.
func (u *usage) read(now time.Time) Use {
	stat, err := u.proc.Stat()
	if err != nil {
		return u.last
	}
	u.last.Comm, u.last.Threads, u.last.RSS, u.last.Age = stat.Comm, stat.Threads, rss(u.proc.Path("statm")), age(stat.StartTime)
	if passed := now.Sub(u.at); passed > 100*time.Millisecond {
		u.last.User = ratio(time.Duration(stat.UTime-u.user)*time.Second/userHZ, passed)
		u.last.Sys = ratio(time.Duration(stat.STime-u.sys)*time.Second/userHZ, passed)
		u.at, u.user, u.sys = now, stat.UTime, stat.STime
	}
	return u.last
}

// age of what began so many ticks after boot.
func age(start uint64) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano()) - time.Duration(start)*time.Second/userHZ
}
