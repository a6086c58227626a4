package profiler

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

// ErrNoMemoryProfile is wrapped by errors that say that a process's runtime keeps no profile of a kind of itself.
var ErrNoMemoryProfile = errors.New("there is no profile to be read")

// Read returns the profile that the runtime of p has now, as its own runtime/pprof writes it: of all since the process began.
// atRuntime: with addresses of the program as p has them, else as its file does. p does not become a target. Errors are those of
// Add; where p has ended they wrap os.ErrNotExist, where there is nothing to be read ErrNoMemoryProfile.
func (m *Memory) Read(p Process, kind string, atRuntime bool) (_ *export.Profile, err error) {
	t, err := m.look(p.PID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if t.start != p.Start {
		return nil, ended(p)
	}
	out := &export.Profile{Kind: kind, PID: p.PID, StartTicks: p.Start, Comm: t.comm, Start: time.Now()}
	if isContention(kind) {
		err = m.readWaiting(out, t)
	} else {
		err = m.readHeap(out, t)
	}
	switch {
	case err == nil:
	case NotRead(err), off(err):
		return nil, fmt.Errorf("%w: %w", ErrNoMemoryProfile, t.named(p.PID, err))
	case !t.current():
		return nil, ended(p)
	default:
		return nil, t.named(p.PID, err)
	}
	if atRuntime {
		move(out.Data, t.bias)
	}
	return out, nil
}

func (m *Memory) readHeap(out *export.Profile, t *memTarget) error {
	rate, err := m.memRate(t)
	switch {
	case err != nil:
		return err
	case rate <= 0:
		return errMemProfileOff
	}
	if err := t.read(m.mode()); err != nil {
		return err
	}
	m.build(out, t, m.symbolizer(), rate)
	out.Data.Comments = append(out.Data.Comments, published(m.mode()))
	return nil
}

func (m *Memory) readWaiting(out *export.Profile, t *memTarget) error {
	if err := m.addContention(t, out.Kind, false); err != nil {
		return err
	}
	m.buildContention(out, t, t.contended[out.Kind], m.symbolizer())
	return nil
}

func ended(p Process) error {
	return fmt.Errorf("process %d has ended, or another one has its PID by now: %w", p.PID, os.ErrNotExist)
}

func (m *Memory) symbolizer() *symbolize.Symbolizer {
	return symbolize.New(m.images.Get, &symbolize.Options{Kallsyms: m.cfg.ProcRoot + "/kallsyms"})
}

// move adds to the addresses of the program, whose mapping is the first.
func move(p *profile.Profile, bias uint64) {
	if len(p.Mapping) == 0 {
		return
	}
	main := p.Mapping[0]
	main.Start, main.Limit = main.Start+bias, main.Limit+bias
	for _, l := range p.Location {
		if l.Mapping == main {
			l.Address += bias
		}
	}
}

// Names returns the names of the functions that p has at addresses of its own, "" where there is none; the innermost where
// calls are inlined. Errors are those of Read.
func (m *Memory) Names(p Process, pcs []uint64) (names []string, err error) {
	proc, err := m.open(p.PID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, proc.space.Close()) }()
	if proc.start != p.Start {
		return nil, ended(p)
	}
	addrs := make([]objfile.Addr, len(pcs))
	for i, pc := range pcs {
		if a, ok := proc.space.Resolve(pc); ok {
			addrs[i] = a
		}
	}
	sym := m.symbolizer()
	names = make([]string, len(pcs))
	for i, a := range addrs {
		if a.Image == 0 {
			continue
		}
		if frames := sym.Frames(a); len(frames) > 0 && frames[0].Kind != symbolize.Unknown {
			names[i] = frames[0].Func
		}
	}
	return names, nil
}
