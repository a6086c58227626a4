package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/export/otlp"
	"github.com/pprofd/pprofd/export/parca"
	"github.com/pprofd/pprofd/export/pyroscope"
	"github.com/pprofd/pprofd/export/queue"
	"github.com/pprofd/pprofd/export/spool"
)

// aWindow is a profile of each process, as the profiler would hand it on now. For processes that had no sample (they are nearly
// idle, and tests measure for seconds only) there are those of the others once more.
func aWindow(f files, processes int) (list []*export.Profile) {
	seen := map[string]bool{}
	for _, s := range f.profiles {
		if !seen[s.pid] && len(list) < processes {
			seen[s.pid] = true
			list = append(list, asOf(1000+len(list), s.data))
		}
	}
	for n := len(list); n > 0 && len(list) < processes; {
		list = append(list, asOf(1000+len(list), list[len(list)-n].Data.Copy()))
	}
	return list
}

func asOf(pid int, data *profile.Profile) *export.Profile {
	start := time.Now().Add(-10 * time.Second)
	data.Comments, data.TimeNanos = nil, start.UnixNano()
	return &export.Profile{
		Kind: "cpu", PID: pid, StartTicks: 1, Comm: "service", Service: "service", Start: start, Duration: 10 * time.Second, Data: data,
		Labels: []export.Label{
			{Name: "comm", Value: "service"}, {Name: "exe", Value: "/srv/service"}, {Name: "go_version", Value: "go1.26"}, {Name: "host", Value: "host"},
			{Name: "module", Value: "example.com/service"}, {Name: "pid", Value: fmt.Sprint(pid)}, {Name: "user", Value: "root"},
		},
	}
}

// fresh forgets what was encoded before.
func fresh(list []*export.Profile) {
	now := time.Now().Add(-10 * time.Second)
	for _, p := range list {
		p.Encoded, p.Start, p.Data.TimeNanos = nil, now, now.UnixNano()
	}
}

// exporter to a protocol's server.
func (b *bench) exporter(name string) (export.Exporter, error) {
	at := b.receiver.addresses[name]
	switch name {
	case "pyroscope":
		return pyroscope.New(pyroscope.Options{URL: "http://" + at})
	case "ingest":
		return pyroscope.New(pyroscope.Options{URL: "http://" + at, API: pyroscope.APIIngest})
	case "parca":
		return parca.New(parca.Options{Address: "http://" + at})
	case "otlp":
		return otlp.New(otlp.Options{Endpoint: "http://" + at})
	case "otlphttp":
		return otlp.New(otlp.Options{Endpoint: "http://" + at, Protocol: "http"})
	}
	return nil, fmt.Errorf("there is no destination %q", name)
}

// toServer exports a window, from the profiles to the last answer.
func (b *bench) toServer(ctx context.Context, name string, list []*export.Profile) error {
	x, err := b.exporter(name)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "spool-"+name)
	s, err := spool.Open(spool.Options{Dir: dir})
	if err != nil {
		return err
	}
	cursors, err := s.Attach(spool.Destination{Name: name})
	if err != nil {
		return err
	}
	q, err := queue.New(queue.Options{Name: name, Cursor: cursors[0], Exporter: x, Patient: true})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	warm := *list[0] // the connection is there before the window
	if err := through(ctx, s, q, []*export.Profile{&warm}); err != nil {
		return err
	}
	for range b.rounds {
		fresh(list)
		before, err := b.receiver.counted()
		if err != nil {
			return err
		}
		used, began := ownCPU(), time.Now()
		if err := through(ctx, s, q, list); err != nil {
			return err
		}
		cpu, took := ownCPU()-used, time.Since(began)
		after, err := b.receiver.counted()
		if err != nil {
			return err
		}
		b.add(name, len(list), cpu, took, after[name]-before[name])
	}
	return errors.Join(q.Close(ctx), <-ended, s.Close())
}

func (b *bench) add(to string, n int, cpu, took time.Duration, bytes int64) {
	b.report.Add(fmt.Sprintf("ExportWindow/processes=%d/to=%s", n, to), 1,
		board.Value{V: cpu.Seconds(), Unit: "cpu-s/window"}, board.Value{V: took.Seconds(), Unit: "s/window"}, board.Value{V: float64(bytes), Unit: "B/window"})
}

// through puts profiles into the spool and waits until they are delivered.
func through(ctx context.Context, s *spool.Spool, q *queue.Queue, list []*export.Profile) error {
	want := q.Stats().Delivered.Profiles + int64(len(list))
	for _, p := range list {
		if err := s.Append(p); err != nil {
			return err
		}
	}
	if err := s.Commit(); err != nil {
		return err
	}
	for q.Stats().Delivered.Profiles < want {
		if st := q.Stats(); st.Failures > 0 || ctx.Err() != nil {
			return fmt.Errorf("%s; %w", st.LastError, ctx.Err())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// toFiles writes a window and has it on the disk.
func (b *bench) toFiles(ctx context.Context, list []*export.Profile) error {
	s, err := file.OpenStore(file.StoreOptions{Dir: filepath.Join(b.dir, "files")})
	if err != nil {
		return err
	}
	for range b.rounds {
		fresh(list)
		used, began := ownCPU(), time.Now()
		for _, p := range list {
			if err := s.Export(ctx, p); err != nil {
				return err
			}
		}
		if err := s.Sync(); err != nil {
			return err
		}
		cpu, took := ownCPU()-used, time.Since(began)
		f, err := readFiles(filepath.Join(b.dir, "files"))
		if err != nil {
			return err
		}
		b.add("files", len(list), cpu, took, f.bytes*int64(len(list))/int64(len(f.profiles)))
	}
	return s.Close()
}

// toSpool is the part that all servers share: encoding, and one file on the disk.
func (b *bench) toSpool(list []*export.Profile) error {
	s, err := spool.Open(spool.Options{Dir: filepath.Join(b.dir, "spool")})
	if err != nil {
		return err
	}
	if _, err := s.Attach(spool.Destination{Name: "nobody"}); err != nil {
		return err
	}
	for range b.rounds {
		fresh(list)
		size := s.Stats().Bytes
		used, began := ownCPU(), time.Now()
		for _, p := range list {
			if err := s.Append(p); err != nil {
				return err
			}
		}
		if err := s.Commit(); err != nil {
			return err
		}
		b.add("spool", len(list), ownCPU()-used, time.Since(began), s.Stats().Bytes-size)
	}
	return s.Close()
}

func ownCPU() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // cannot fail
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
