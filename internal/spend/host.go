package spend

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/cgroup"
)

// host is the machine, as far as it matters for a budget.
type host struct {
	fs    procfs.FS
	root  string
	cpus  float64 // that there are
	stall stall
}

// stall is how long, since the machine's start, some process had to wait for a CPU: /proc/pressure/cpu.
type stall struct {
	total uint64 // microseconds
	at    time.Time
}

func newHost(procRoot string) (*host, error) {
	fs, err := procfs.NewFS(procRoot)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", procRoot, err)
	}
	h := &host{fs: fs, root: procRoot}
	stat, err := fs.Stat()
	if err != nil {
		return nil, fmt.Errorf("count CPUs in %s/stat: %w", procRoot, err)
	}
	h.cpus = float64(max(1, len(stat.CPU)))
	h.pressure(time.Now())
	return h, nil
}

// budget is how many CPUs a share of the machine is. What the process's own cgroup does not allow is not there to be spent.
func (h *host) budget(share float64) float64 {
	cpus := share * h.cpus
	if limit, ok, err := cgroup.CPUs(h.root, os.Getpid()); err == nil && ok {
		cpus = min(cpus, limit)
	}
	return cpus
}

// memory is how much of bytes a process may have whose cgroups have limits, too: some of it is left for what is not RSS.
func (h *host) memory(bytes int64) int64 {
	m, err := cgroup.Open(h.root, os.Getpid())
	if err != nil {
		return bytes
	}
	p, err := m.Pressure()
	if limit := int64(float64(p.Limit) * ofLimit); err == nil && (bytes == 0 || limit < bytes) {
		return limit
	}
	return bytes
}

// ofLimit is the share of a cgroup's memory limit that the process may take.
const ofLimit = 0.9

// load is how busy the machine has been since it was asked last: the share of the time in which some process waited for a CPU,
// else the load average of the last minute for each CPU, else NaN.
func (h *host) load(now time.Time) float64 {
	if share, ok := h.pressure(now); ok {
		return share
	}
	if avg, err := h.fs.LoadAvg(); err == nil {
		return avg.Load1 / h.cpus
	}
	return math.NaN()
}

// pressure is not there where the kernel was built without, or started with psi=0 (Documentation/accounting/psi.rst).
func (h *host) pressure(now time.Time) (share float64, ok bool) {
	psi, err := h.fs.PSIStatsForResource("cpu")
	if err != nil || psi.Some == nil {
		return 0, false
	}
	before := h.stall
	h.stall = stall{psi.Some.Total, now}
	elapsed := now.Sub(before.at)
	if before.at.IsZero() || elapsed <= 0 || h.stall.total < before.total {
		return 0, true
	}
	return min(1, float64(h.stall.total-before.total)/float64(elapsed.Microseconds())), true
}

// rss is this process's resident memory, in bytes.
func (h *host) rss() (int64, error) {
	self, err := h.fs.Self()
	if err != nil {
		return 0, err
	}
	stat, err := self.Stat()
	if err != nil {
		return 0, err
	}
	return int64(stat.ResidentMemory()), nil
}

// ownCPU is the CPU time of this process, and if asked for of the children that it has waited for.
func ownCPU(children bool) (time.Duration, error) {
	var sum time.Duration
	var errs []error
	who := []int{unix.RUSAGE_SELF}
	if children {
		who = append(who, unix.RUSAGE_CHILDREN)
	}
	for _, who := range who {
		var u unix.Rusage
		errs = append(errs, unix.Getrusage(who, &u))
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum, errors.Join(errs...)
}

// OwnCPU is the CPU time of this process since it began.
func OwnCPU() (time.Duration, error) { return ownCPU(false) }
