package profiler

import (
	"cmp"
	"errors"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/symbolize"
)

// symbols says where the names of kernel functions come from: from the kernel that samples, else from kallsyms.
func (c *Config) symbols() *symbolize.Options {
	o := &symbolize.Options{Kallsyms: c.ProcRoot + "/kallsyms"}
	if c.Source == nil {
		o.KernelNames = kernelNames
	}
	return o
}

// With many targets most of what a Profiler holds has no pointers: to collect more than twice as often as Go does by default costs a
// twentieth of its CPU time, and saves a third of its memory. With few it costs more, and saves nothing.
const (
	manyTargets = 100
	gcPercent   = 40
)

// expect adapts the bounds of the table to what there is to sample, and the garbage collector if it is ours.
func (p *Profiler) expect() {
	p.table.Expect(len(p.all), cmp.Or(p.cfg.CPUs, runtime.NumCPU()))
	if p.cfg.TuneGC && len(p.all) == manyTargets && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

func kernelNames(addrs []uint64) (names []string, err error) {
	n, err := bpf.NewKernelNamer()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return n.Names(addrs)
}
