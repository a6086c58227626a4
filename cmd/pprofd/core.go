package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

// coreOptions are flags for who has the core file of a process in the place of the process.
type coreOptions struct {
	file string
	exe  string // "": at the path that the core file has
}

func (o *coreOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.file, "core", "", "core file to look at, of gcore or the kernel, in the place of a process")
	f.StringVar(&o.exe, "core-exe", "", "with --core: the program's file, where it is not at the path that the process had")
}

func (o *coreOptions) check(others bool) error {
	switch {
	case o.file == "" && o.exe != "":
		return errors.New("--core-exe is for --core")
	case o.file != "" && others:
		return errors.New("choose either a core file or processes, not both")
	}
	return nil
}

// checkCore refuses what a core file cannot give.
func (o *recordOptions) checkCore() error {
	if o.core.file == "" {
		return nil
	}
	has := []string{profiler.KindHeap, profiler.KindBlock, profiler.KindMutex, profiler.KindGoroutine}
	for _, kind := range o.kinds {
		if !slices.Contains(has, kind) {
			return fmt.Errorf("a core file has no %s profile: -t heap,block,mutex,goroutine are there, and pprofd dump --core shows goroutines", kind)
		}
	}
	switch {
	case o.durationExplicit:
		return errors.New("-d is for processes that run: a core file has what there was at one moment")
	case o.onOOM:
		return errors.New("--on-oom is for processes that run")
	}
	return nil
}

// openGoroutines opens what dump is to look at.
func openGoroutines(ctx context.Context, o *dumpOptions) (*profiler.Goroutines, error) {
	if o.core.file != "" {
		g, err := profiler.OpenGoroutinesOfCore(ctx, o.core.file, o.core.exe)
		if errors.Is(err, context.Canceled) {
			err = explainGoroutines(err)
		}
		return g, err
	}
	in := discover.NewInspector(procRoot)
	if _, err := in.Inspect(o.pid); err != nil {
		return nil, explainPID(o.pid, err)
	}
	if err := leads(in.Proc(o.pid)); err != nil {
		return nil, err
	}
	g, err := profiler.OpenGoroutines(o.pid, procRoot)
	if err != nil {
		return nil, explainGoroutines(err)
	}
	return g, nil
}
