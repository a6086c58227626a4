// Package profiler is the pipeline: the one place where the parts meet.
package profiler

import (
	"context"
	"log/slog"

	"github.com/pprofd/pprofd/export"
)

// Config says what to profile and how. The zero value of a field means its default.
type Config struct {
	Log       *slog.Logger
	Frequency int    // samples per second and CPU; 99
	Event     string // "" (cycles where there are any, else cpu-clock), "cpu-clock", "cycles"
	NoKernel  bool   // leave kernel stacks out
	Goid, TID bool   // add the labels goid, tid
	Merge     bool   // one profile for all targets
	Exporter  export.Exporter
	ProcRoot  string // "/proc"
	Version   string // of pprofd, for the profile's comments
}

// Profiler samples targets. New loads and checks what the kernel must do; its errors name the missing capability or kernel version.
type Profiler struct{}

func New(Config) (*Profiler, error) { return &Profiler{}, nil }

// Add makes a running process a target. The error wraps objfile.ErrNotGo, os.ErrNotExist, ... and names the process.
func (p *Profiler) Add(pid int) error { return nil }

// AddAtExec makes pid a target from its next execve on. path is the program that it will execute.
func (p *Profiler) AddAtExec(pid int, path string) error { return nil }

// Run samples until ctx ends or every target has exited, then exports each target's profile.
func (p *Profiler) Run(ctx context.Context) error { return nil }

// Stats is safe to call from other goroutines while Run runs.
func (p *Profiler) Stats() Stats { return Stats{} }

// Close frees everything.
func (p *Profiler) Close() error { return nil }

// Stats counts since New. Recorded = exported + lost, exactly, once Run has returned.
type Stats struct {
	Recorded, Lost, Truncated, Broken uint64
	Targets, Exited                   int
	Notes                             []string // what the user should know: a target exited, labels are unknown, ...
}
