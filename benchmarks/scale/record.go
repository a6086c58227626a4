package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/profiler"
)

// program is one of internal/testprog/targets, with its arguments.
type program struct {
	name  string
	flags string // of the linker
	args  []string
}

const forLong = "36000" // seconds; they are killed before

var programs = []program{
	{"service", "", []string{"-clients", "8"}},
	{"mixed", "", []string{"-seconds", forLong}},
	{"labels", "", []string{"-seconds", forLong}},
	{"deep", "", []string{"-depth", "28", "-seconds", forLong}},
	{"spin", "", []string{"-seconds", forLong}},
	{"handler", "", []string{"-rate", "1000", "-seconds", forLong}},
	{"service", "-s -w", []string{"-clients", "2"}},
	{"mixed", "-s -w", []string{"-seconds", forLong}},
}

// original is a program that was recorded and is stopped.
type original struct {
	path    string
	cmd     *exec.Cmd
	stdin   *os.File // the end of our pipe: service ends with its input
	samples []bpf.Record
	bytes   int // of all samples
}

// recordHz is a rate that gives samples enough of a program in seconds.
const recordHz = 999

func buildOriginal(ctx context.Context, dir string, n int, p program) (string, error) {
	root, err := board.Command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s%d", p.name, n))
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", p.flags+" -B 0x"+agents.BuildID, "-o", path, "./"+p.name)
	cmd.Dir = filepath.Join(strings.TrimSpace(root), "internal", "testprog", "targets")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return path, nil
}

// record runs a program, takes its samples for d, and stops it.
func record(ctx context.Context, path string, args []string, d time.Duration) (o *original, err error) {
	o = &original{path: path}
	if err := o.start(args); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	probes, err := bpf.Load(bpf.Options{Frequency: recordHz, Event: bpf.EventCPUClock})
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	p, err := profiler.New(profiler.Config{Source: &tee{probes, bpf.NewRecorder(&file)}})
	if err != nil {
		return nil, errors.Join(err, probes.Close())
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	time.Sleep(time.Second) // a younger process is not a verified one
	if err := p.Add(o.cmd.Process.Pid); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		return nil, err
	}
	return o, errors.Join(o.load(&file), o.cmd.Process.Signal(unix.SIGSTOP))
}

// start runs the program until it says that it is ready.
func (o *original) start(args []string) error {
	in, stdin, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	o.stdin = stdin
	o.cmd = exec.Command(o.path, args...)
	o.cmd.Stdin, o.cmd.Stderr = in, os.Stderr
	out, err := o.cmd.StdoutPipe()
	if err == nil {
		err = o.cmd.Start()
	}
	if err != nil {
		return errors.Join(err, stdin.Close())
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "ready") {
			return nil
		}
	}
	o.close()
	return errors.New("did not get ready")
}

func (o *original) close() {
	o.cmd.Process.Kill()
	_ = o.cmd.Wait() // it was killed
	o.stdin.Close()
}

// tee records the samples that are read.
type tee struct {
	*bpf.Probes
	rec *bpf.Recorder
}

func (t *tee) Read(r *bpf.Record, deadline time.Time) error {
	if err := t.Probes.Read(r, deadline); err != nil || r.Type != bpf.TypeSample {
		return err
	}
	return t.rec.Write(r)
}

// load reads back what was recorded.
func (o *original) load(file *bytes.Buffer) error {
	o.bytes = file.Len()
	for replay := bpf.NewReplay(file); ; {
		var r bpf.Record
		if err := replay.Read(&r, time.Time{}); errors.Is(err, bpf.ErrFlushed) {
			break
		} else if err != nil {
			return err
		}
		o.samples = append(o.samples, r)
	}
	if len(o.samples) == 0 {
		return fmt.Errorf("%s gave no samples", o.path)
	}
	return nil
}
