package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/testprog/disk"
)

// TestSinkSurvivesPowerFailures: a window is on the disk soon after its batch ends, files without servers and with them, and the
// spool.
func TestSinkSurvivesPowerFailures(t *testing.T) {
	for name, section := range map[string]string{"files": "", "files and a server": fmt.Sprintf("parca: {address: '%s', name: server}", freePort(t))} {
		t.Run(name, func(t *testing.T) {
			ext4 := disk.New(t)
			d := newDelivery(t, 1)
			d.dir = filepath.Join(ext4.Dir, "data", ".spool")
			store, err := file.OpenStore(file.StoreOptions{Dir: filepath.Join(ext4.Dir, "data")})
			if err != nil {
				t.Fatal(err)
			}
			d.servers = newServers(slog.New(slog.NewTextHandler(d.log, nil)), "test", prometheus.NewRegistry())
			d.configure(section)
			t.Cleanup(d.end) // before the disk goes
			k := newSink(store, d.servers, d.servers.log)
			list, total := windowOf(1, 20, time.Now())
			for _, p := range list {
				if err := k.Export(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			if err := k.Flush(); err != nil {
				t.Fatal(err)
			}
			want := kept{20, total, 0}
			if section != "" {
				want.batches = 1
			}
			var got kept
			for range 20 { // the kernel by itself would take 5 s and more
				time.Sleep(100 * time.Millisecond)
				if got = onDisk(t, ext4.AfterFailure(t), len(list)); got == want {
					break
				}
			}
			if got != want {
				t.Errorf("%+v are there, want %+v", got, want)
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// kept is what is there after a power failure.
type kept struct {
	files   int
	samples int64
	batches int
}

// onDisk looks at what is in dir.
func onDisk(t *testing.T, dir string, processes int) (k kept) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "data", "*", "*", "cpu-*.pb.gz"))
	if err != nil || len(list) > processes {
		t.Fatalf("%d files, %v", len(list), err)
	}
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := profile.ParseData(b)
		if err != nil {
			continue // it has a name, and no contents yet
		}
		k.files++
		for _, s := range p.Sample {
			k.samples += s.Value[0]
		}
	}
	batches, err := filepath.Glob(filepath.Join(dir, "data", ".spool", "*.spool"))
	if err != nil {
		t.Fatal(err)
	}
	k.batches = len(batches)
	return k
}
