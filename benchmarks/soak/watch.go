package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/pprofd/pprofd/internal/procfs"
)

// sample is what was seen of the measured process at one moment.
type sample struct {
	At  time.Duration // since the watch began
	RSS float64       // MB
	FDs int
	CPU time.Duration // used since its start
	state

	Alive int64 // short-lived processes
}

// watch is a process with a profiler, a copy of this program, and what it was seen to hold.
type watch struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	began time.Time
	alive func() int64
	done  chan struct{} // closed when it has written its last state

	told sync.Mutex // in

	mu      sync.Mutex
	samples []sample
	final   state
	err     error
}

// start starts this program with a command of its own.
func start(ctx context.Context, alive func() int64, args ...string) (*watch, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &watch{cmd: exec.CommandContext(ctx, self, args...), began: time.Now(), alive: alive, done: make(chan struct{})}
	w.cmd.Stderr = os.Stderr
	w.cmd.Env = append(os.Environ(), measuredEnv+"=1")
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go w.read(out)
	return w, nil
}

// read takes a sample with each state that the process tells.
func (w *watch) read(out io.Reader) {
	defer close(w.done)
	for dec := json.NewDecoder(out); ; {
		var s state
		if err := dec.Decode(&s); err != nil {
			if !errors.Is(err, io.EOF) {
				w.err = err
			}
			return
		}
		seen, err := w.look(s)
		w.mu.Lock()
		if w.final = s; err == nil {
			w.samples = append(w.samples, seen)
		}
		w.mu.Unlock()
	}
}

func (w *watch) look(s state) (sample, error) {
	dir := "/proc/" + strconv.Itoa(w.cmd.Process.Pid)
	files, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return sample{}, err
	}
	b, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return sample{}, err
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return sample{}, errors.New("statm: no fields")
	}
	pages, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return sample{}, err
	}
	stat, err := procfs.New("").Proc(w.cmd.Process.Pid).Stat()
	return sample{
		At: time.Since(w.began), RSS: float64(pages*os.Getpagesize()) / 1e6, FDs: len(files), state: s, Alive: w.alive(),
		CPU: time.Duration(stat.UTime+stat.STime) * 10 * time.Millisecond,
	}, err
}

// tell tells the process of another.
func (w *watch) tell(how string, pid int, program string) error {
	w.told.Lock()
	defer w.told.Unlock()
	_, err := fmt.Fprintln(w.in, how, pid, program)
	return err
}

// latest are the samples of the last d.
func (w *watch) latest(d time.Duration) (list []sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.samples {
		if s.At >= time.Since(w.began)-d {
			list = append(list, s)
		}
	}
	return list
}

// end ends it, and returns what it told last.
func (w *watch) end() (state, error) {
	err := w.in.Close()
	<-w.done
	return w.final, errors.Join(err, w.err, w.cmd.Wait())
}

// lowest of what samples say.
func lowest(samples []sample, m func(*sample) float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	low := m(&samples[0])
	for i := range samples {
		low = min(low, m(&samples[i]))
	}
	return low
}
