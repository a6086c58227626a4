package profiler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/pprofd/pprofd/objfile"
)

// openCore opens the process that has left a core file. exe is its program, "": by the path that the core file has. Errors name the
// file, and wrap objfile.ErrCore, objfile.ErrNotGo or what opening the program's file has failed with.
func (o *opener) openCore(path, exe string) (process, error) {
	core, err := objfile.OpenCore(path)
	if err != nil {
		return process{}, err
	}
	p := process{pid: uint32(max(core.PID, 0)), comm: core.Comm}
	if p.space, err = objfile.OpenCoreSpace(o.images, core, exe); err != nil {
		return process{}, fmt.Errorf("core file %s: %w", path, err)
	}
	main := p.space.Main()
	if main != nil && main.Image.File.Machine() == core.Machine() {
		return p, nil
	}
	if main != nil {
		err = fmt.Errorf("core file %s: %w: it is of %v, and %s of %v", path, objfile.ErrCore, core.Machine(), main.Image.Path, main.Image.File.Machine())
		return process{}, errors.Join(err, p.space.Close())
	}
	err = fmt.Errorf("core file %s, of process %d (%s): %w%s", path, p.pid, p.comm, p.space.WhyNotGo(), needsExe(p.space, exe))
	return process{}, errors.Join(err, p.space.Close())
}

// needsExe says what helps where the program's file cannot be had.
func needsExe(s *objfile.Space, exe string) string {
	exeImage := s.Exe()
	if exe != "" || exeImage != nil && exeImage.File != nil {
		return ""
	}
	return ": give the program's file with --core-exe"
}

// coreNotes are what the user should know of a core file.
func coreNotes(s *objfile.Space) (notes []string) {
	core := s.Core()
	if core == nil {
		return nil
	}
	if core.CutOff() {
		notes = append(notes, "the core file is cut off: it ends before its memory does")
	}
	if absent := s.Absent(); len(absent) > 0 {
		notes = append(notes, "files that the process had mapped are missing: "+strings.Join(absent, "; "))
	}
	return notes
}

// AddCore makes the process a target that has left a core file: its profiles are those of when that was written. KindAllocs cannot be
// had. Errors are those of openCore and of Add.
func (m *Memory) AddCore(path, exe string) error {
	proc, err := m.openCore(path, exe)
	if err != nil {
		return err
	}
	t := &memTarget{process: proc, bias: proc.space.Main().Bias}
	for _, kind := range m.cfg.Kinds {
		if err = m.addKind(t, kind, false); err != nil {
			return errors.Join(fmt.Errorf("core file %s: %w", path, t.named(int(t.pid), err)), t.close())
		}
	}
	m.targets = append(m.targets, t)
	for _, note := range coreNotes(t.space) {
		m.note("%s", note)
	}
	return nil
}

// OpenGoroutinesOfCore opens the process that has left a core file, and finds the goroutine in which it ended. How long its goroutines have
// waited is not known. Errors are those of openCore, OpenGoroutines and ctx.
func OpenGoroutinesOfCore(ctx context.Context, path, exe string) (*Goroutines, error) {
	o := newOpener("/proc")
	proc, err := o.openCore(path, exe)
	if err != nil {
		return nil, err
	}
	g, err := o.openAlone(proc, math.MinInt64/2)
	if err != nil {
		return nil, fmt.Errorf("core file %s: %w", path, err)
	}
	if err := g.findKilled(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("core file %s: process %d (%s): %w", path, g.pid, g.comm, err), g.Close())
	}
	return g, nil
}

// PID is that of the process; one that has left a core file had it then.
func (g *Goroutines) PID() int { return int(g.pid) }
