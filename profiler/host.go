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

// expect adapts the bounds of the table to what there is to sample.
func (p *Profiler) expect() { p.table.Expect(len(p.all), cmp.Or(p.cfg.CPUs, runtime.NumCPU())) }

func kernelNames(addrs []uint64) (names []string, err error) {
	n, err := bpf.NewKernelNamer()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return n.Names(addrs)
}

// gcPercent is half of Go's default: most of what a Profiler holds has no pointers, so that collecting more often costs
// little, and memory matters more.
const gcPercent = 50

// TuneGC sets up the garbage collector of a program that is a profiler and nothing else, unless its user did.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
