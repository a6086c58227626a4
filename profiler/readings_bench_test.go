package profiler

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/testprog"
)

// BenchmarkReading reads the heap profile of a service that idles, whose program is known, and writes it: what the agent does
// for each process once a minute.
func BenchmarkReading(b *testing.B) {
	path := testprog.Build(b, "service", testprog.Options{})
	cmd := exec.Command(path, "-procs", "1", "-clients", "1", "-pause", "1ms")
	if _, err := cmd.StdinPipe(); err != nil { // with its end the service ends
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	time.Sleep(2 * time.Second)
	store, err := file.OpenStore(file.StoreOptions{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	r := NewReadings(ReadingsConfig{MemoryConfig: MemoryConfig{Kinds: []string{KindHeap}, Exporter: store}, Discovery: everybody{}})
	defer r.Close()
	p := processOf(b, cmd.Process.Pid)
	s := &reading{}
	read := func() {
		if o := r.read(context.Background(), p, s); o.memory != nil || o.gone {
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
