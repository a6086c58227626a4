package profiler

import (
	"errors"

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

func kernelNames(addrs []uint64) (names []string, err error) {
	n, err := bpf.NewKernelNamer()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return n.Names(addrs)
}
