package profiler

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/testprog"
)

// idleService is a service that idles.
func idleService(b *testing.B) Process {
	b.Helper()
	path := testprog.Build(b, "service", testprog.Options{})
	cmd := exec.Command(path, "-procs", "1", "-clients", "1", "-pause", "1ms")
	if _, err := cmd.StdinPipe(); err != nil { // with its end the service ends
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	time.Sleep(2 * time.Second)
	return processOf(b, cmd.Process.Pid)
}

// BenchmarkReading reads profiles of a service that idles, whose program is known, and writes them: what the agent does for each process once
// a minute.
func BenchmarkReading(b *testing.B) {
	for _, kinds := range [][]string{{KindHeap}, {KindBlock, KindMutex}, {KindGoroutine}, {KindHeap, KindBlock, KindMutex, KindGoroutine}} {
		b.Run(strings.Join(kinds, ","), func(b *testing.B) { benchmarkReading(b, kinds) })
	}
}

func benchmarkReading(b *testing.B, kinds []string) {
	p := idleService(b)
	store, err := file.OpenStore(file.StoreOptions{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	r := NewReadings(ReadingsConfig{MemoryConfig: MemoryConfig{Kinds: kinds, Exporter: store}, Discovery: everybody{}})
	defer r.Close()
	s := &reading{}
	read := func() {
		if o := r.read(context.Background(), p, s); o.failed() || o.gone {
			b.Fatal(o)
		}
	}
	read()
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
	b.ReportMetric(float64(r.stats.Sites)/float64(b.N+1), "sites/op")
}

// BenchmarkWallsWindow is what a window costs of a service that idles, whose program is known, with one snapshot and a profile, which is
// encoded; the file is not written.
func BenchmarkWallsWindow(b *testing.B) {
	p := idleService(b)
	w := NewWalls(WallsConfig{WallConfig: WallConfig{Exporter: &keep{}}, Discovery: everybody{}})
	k := newWallWorker(w)
	defer k.close()
	k.rates = w.rates
	k.openOne(p, time.Now())
	b.ReportAllocs()
	for b.Loop() {
		w.cfg.Exporter.(*keep).profiles = nil
		k.began = time.Now()
		k.active = nil
		k.sample(k.open[p])
		k.take(b.Context(), k.open[p])
		k.freeze(k.open[p], time.Now())
		k.building, k.frozen = k.frozen, nil
		for _, one := range k.building {
			k.build(b.Context(), one)
		}
	}
}
