package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/bpf"
)

// row is one machine that is simulated.
type row struct {
	cpus, processes, binaries, hz int
	paced                         bool // in real time
}

func (w *row) rate() int { return w.cpus * w.hz }

// library is what rows are made of.
type library struct {
	dir       string
	self      string // this program
	originals []*original
	copies    []string
}

func newLibrary(ctx context.Context, dir string, c *config) (*library, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &library{dir: dir, self: self}
	if err := l.build(ctx, c); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// build builds and records the programs.
func (l *library) build(ctx context.Context, c *config) error {
	for i, p := range c.programs {
		path, err := buildOriginal(ctx, l.dir, i, p)
		if err != nil {
			return err
		}
		o, err := record(ctx, path, p.args, c.recording)
		if err != nil {
			return fmt.Errorf("record %s: %w", p.name, err)
		}
		l.originals = append(l.originals, o)
	}
	return nil
}

func (l *library) close() {
	for _, o := range l.originals {
		o.close()
	}
}

// binary is the path of the n-th distinct program, and what it is a copy of.
func (l *library) binary(n int) (string, *original, error) {
	for i := len(l.copies); i <= n; i++ {
		path := filepath.Join(l.dir, fmt.Sprintf("program%03d", i))
		if err := agents.Copy(l.originals[i%len(l.originals)].path, path, i); err != nil {
			return "", nil, err
		}
		l.copies = append(l.copies, path)
	}
	return l.copies[n], l.originals[n%len(l.originals)], nil
}

// processes makes the simulated /proc of a row at root.
func (l *library) processes(root string, w row) ([]simulated, error) {
	if err := errors.Join(os.Mkdir(root, 0o755), os.Symlink("/proc/kallsyms", filepath.Join(root, "kallsyms"))); err != nil {
		return nil, err
	}
	list := make([]simulated, w.processes)
	for i := range list {
		path, o, err := l.binary(i % w.binaries)
		if err != nil {
			return nil, err
		}
		if list[i], err = addProcess(root, uint32(firstPID+i), o, path); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// run simulates a row for a window.
func (l *library) run(ctx context.Context, w row, window time.Duration, extra ...string) (r result, err error) {
	dir, err := os.MkdirTemp(inMemory(), "pprofd-scale-*")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root := filepath.Join(dir, "proc")
	processes, err := l.processes(root, w)
	if err != nil {
		return r, err
	}
	args := append([]string{workerCommand, "-proc", root, "-to", filepath.Join(dir, "profiles"),
		"-processes", strconv.Itoa(w.processes), "-rate", strconv.Itoa(w.rate()), "-cpus", strconv.Itoa(w.cpus),
		"-samples", strconv.Itoa(w.samples(window))}, extra...)
	cmd := exec.CommandContext(ctx, l.self, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := feed(cmd, func(to io.Writer) error { return generate(to, processes, w, window) }); err != nil {
		return r, fmt.Errorf("worker: %w: %s", err, stderr.Bytes())
	}
	return r, json.Unmarshal(stdout.Bytes(), &r)
}

// inMemory is where the simulated /proc and the profiles are: creating and deleting 20,000 files a row on a disk would
// be measured along with the profiler.
func inMemory() string {
	const shm = "/dev/shm"
	if st, err := os.Stat(shm); err == nil && st.IsDir() {
		return shm
	}
	return ""
}

const (
	pipeBytes = 1 << 20
	// writeBytes at a time: what the profiler finds in the ring buffer when it is woken
	writeBytes = 256 << 10
)

// feed runs a command with what write writes as its standard input.
func feed(cmd *exec.Cmd, write func(io.Writer) error) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(out.Fd(), unix.F_SETPIPE_SZ, pipeBytes); err != nil {
		return errors.Join(os.NewSyscallError("F_SETPIPE_SZ", err), in.Close(), out.Close())
	}
	cmd.Stdin = in
	if err := cmd.Start(); err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	in.Close()
	b := bufio.NewWriterSize(out, writeBytes)
	err = write(b)
	return errors.Join(err, b.Flush(), out.Close(), cmd.Wait())
}

// generate writes the samples of a window.
func generate(to io.Writer, processes []simulated, w row, window time.Duration) error {
	rng := rand.New(rand.NewPCG(1, 2)) // the same for each row
	rec := bpf.NewRecorder(to)
	began := time.Now()
	for i := range int(window.Seconds() * float64(w.hz)) {
		if w.paced {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(w.hz))))
		}
		for range w.cpus {
			p := &processes[rng.IntN(len(processes))]
			r := &p.of.samples[rng.IntN(len(p.of.samples))]
			r.SetProcess(p.pid, p.start)
			if err := rec.Write(r); err != nil {
				return err
			}
		}
	}
	return nil
}
