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

// How much garbage there may be before it is collected, in percent of what is in use. With a few targets a Profiler uses three
// megabytes and little besides, and what it needs at its start and its end would be collected half a dozen times. With many most of
// what it holds has no pointers: to collect more than twice as often as Go does by default costs a twentieth of its CPU time, and
// saves a third of its memory.
const (
	fewGCPercent, defaultGCPercent, manyGCPercent = 200, 100, 40

	someTargets, manyTargets = 10, 100
)

// expect adapts the bounds of the table to what there is to sample, and the garbage collector if it is ours.
func (p *Profiler) expect() {
	p.table.Expect(len(p.all), cmp.Or(p.cfg.CPUs, runtime.NumCPU()))
	switch len(p.all) {
	case someTargets:
		p.cfg.collectAt(defaultGCPercent)
	case manyTargets:
		p.cfg.collectAt(manyGCPercent)
	}
}

func (c *Config) collectAt(percent int) {
	if c.TuneGC && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
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
