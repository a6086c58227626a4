package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog"
)

// target is a program that is sampled.
type target struct {
	*testprog.Proc
	in    *os.File
	url   string
	marks int
}

// start starts a program that tells where it serves.
func start(name string, args ...string) (*target, error) {
	path, err := testprog.BuildFile(name, withFgprof())
	if err != nil {
		return nil, err
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	p, err := testprog.Launch(testprog.StartOptions{Stdin: in}, path, args...)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	line, err := p.Await("addr ", time.Minute)
	if err != nil {
		p.Stop()
		return nil, errors.Join(err, out.Close())
	}
	return &target{Proc: p, in: out, url: "http://" + strings.TrimPrefix(line, "addr ")}, nil
}

func (t *target) stop() {
	t.in.Close()
	t.Stop()
}

// fetch gets a page of the program.
func (t *target) fetch(ctx context.Context, path string) (_ []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// number is a page that is one.
func (t *target) number(ctx context.Context, path string) (float64, error) {
	text, err := t.fetch(ctx, path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(string(bytes.TrimSpace(text)), 64)
}

// cpu is the CPU time of the program until now.
func (t *target) cpu() (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED of a process: clock_getcpuclockid(3)
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^t.PID<<3|sched), &ts)
	return time.Duration(ts.Nano()), err
}

// watcher is who samples, or nobody.
type watcher struct {
	name string
	// watch samples for a window; its profile is nil where there is none, cpu what it took outside of the program.
	watch func(ctx context.Context, t *target) (p *profile.Profile, cpu time.Duration, err error)
}

func (b *bench) nobody() watcher {
	return watcher{"nobody", func(context.Context, *target) (*profile.Profile, time.Duration, error) {
		time.Sleep(b.window)
		return nil, 0, nil
	}}
}

// profilers are the two that are compared.
func (b *bench) profilers() []watcher {
	return []watcher{{"pprofd", b.record}, {"fgprof", b.fgprof}}
}

// record has pprofd sample.
func (b *bench) record(ctx context.Context, t *target) (*profile.Profile, time.Duration, error) {
	cmd := exec.CommandContext(ctx, b.pprofd, "record", "-t", "wall", "-p", strconv.Itoa(t.PID), "-d", b.window.String(), "-o", b.profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, 0, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	data, err := os.ReadFile(b.profile)
	if err != nil {
		return nil, 0, err
	}
	p, err := profile.ParseData(data)
	return p, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
}

// fgprof has the program sample itself.
func (b *bench) fgprof(ctx context.Context, t *target) (*profile.Profile, time.Duration, error) {
	data, err := t.fetch(ctx, fmt.Sprintf("/debug/fgprof?seconds=%d", int(b.window.Seconds())))
	if err != nil {
		return nil, 0, err
	}
	p, err := profile.ParseData(data)
	return p, 0, err
}
