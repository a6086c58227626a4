package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// load is what is profiled.
type load struct {
	name     string
	services int
	binaries int
	args     []string
}

func loads(c *config) []load {
	return []load{
		{"one", 1, 1, []string{"-procs", "1", "-clients", "2"}},
		{"fleet", c.fleet, min(c.fleet, 20), []string{"-procs", "1", "-clients", "1", "-pause", c.pause.String()}},
	}
}

// begin starts the services of a load.
func (b *bench) begin(l *load) (list []*agents.Service, err error) {
	for i := range l.services {
		path, err := b.services.Program(i % l.binaries)
		if err != nil {
			return list, err
		}
		s, err := agents.StartService(path, l.args)
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
	return list, nil
}

// config is that of the agent: CPU profiles only, to files and all servers.
func (b *bench) agentConfig() string {
	at := b.receiver.addresses
	return fmt.Sprintf(`heap: {enabled: false}
allocs: {enabled: false}
pyroscope: [{url: "http://%s", name: pyroscope}, {url: "http://%s", name: ingest, api: ingest}]
parca: {address: "http://%s", name: parca}
otlp: [{endpoint: "http://%s", name: otlp, experimental: true, metrics: false}, {endpoint: "http://%s", protocol: http, name: otlphttp, experimental: true, metrics: false}]
`, at["pyroscope"], at["ingest"], at["parca"], at["otlp"], at["otlphttp"])
}

// wire runs the agent beside a load, and counts bytes. It returns the directory with its files.
func (b *bench) wire(ctx context.Context, l *load, hz int) (dir string, err error) {
	services, err := b.begin(l)
	defer func() {
		for _, s := range services {
			s.Stop()
		}
	}()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(b.dir, fmt.Sprintf("%s-%d", l.name, hz))
	before, err := b.receiver.counted()
	if err != nil {
		return "", err
	}
	if err := b.runAgent(ctx, dir, hz); err != nil {
		return "", err
	}
	after, err := b.receiver.counted()
	if err != nil {
		return "", err
	}
	f, err := readFiles(dir)
	if err != nil || f.samples == 0 {
		return "", errors.Join(err, fmt.Errorf("%d samples in %s", f.samples, dir))
	}
	b.report.Add(fmt.Sprintf("Export/load=%s/hz=%d", l.name, hz), 1, board.Value{V: float64(f.samples), Unit: "samples"},
		board.Value{V: float64(len(f.profiles)), Unit: "profiles"})
	add := func(to string, bytes int64) {
		per := float64(bytes) / float64(f.samples)
		b.report.Add(fmt.Sprintf("Export/load=%s/hz=%d/to=%s", l.name, hz, to), 1,
			board.Value{V: per, Unit: "B/sample"}, board.Value{V: per * float64(hz) * 3600, Unit: "B/core-h"})
	}
	add("files", f.bytes)
	add("files-in-blocks", f.blocks)
	for _, name := range protocols {
		add(name, after[name]-before[name])
	}
	return dir, nil
}

// runAgent runs it for some windows, and ends it as systemd does: the last one is delivered, too.
func (b *bench) runAgent(ctx context.Context, dir string, hz int) error {
	conf := dir + ".yaml"
	if err := os.WriteFile(conf, []byte(b.agentConfig()), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.agent, "agent", "--config", conf, "--dir", dir, "--listen", "", "--cpu-hz", fmt.Sprint(hz), "--window", b.window.String(),
		"--select", "exe="+filepath.Join(b.dir, "service*"))
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(b.windows)*b.window + b.window/2):
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the agent: %w\n%s", err, &log)
	}
	if strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), "level=WARN") {
		return fmt.Errorf("the agent is not content:\n%s", &log)
	}
	return nil
}

// files is what the agent has written.
type files struct {
	samples       int64
	bytes, blocks int64
	profiles      []stored
}

// stored is a file.
type stored struct {
	pid  string
	data *profile.Profile
}

func readFiles(dir string) (f files, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".pb.gz") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		p, err := profile.ParseData(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return err
		}
		for _, s := range p.Sample {
			f.samples += s.Value[0]
		}
		pid, _, _ := strings.Cut(filepath.Base(filepath.Dir(path)), "-")
		f.bytes, f.blocks, f.profiles = f.bytes+st.Size, f.blocks+st.Blocks*512, append(f.profiles, stored{pid, p})
		return nil
	})
	return f, err
}
