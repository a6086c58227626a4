package agent

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestSinkSurvivesPowerFailures: a window is on the disk soon after its batch ends, files without servers and with them, and the
// spool. A file stands for the disk: its copy is what would be there.
func TestSinkSurvivesPowerFailures(t *testing.T) {
	needs.Root(t)
	for name, section := range map[string]string{"files": "", "files and a server": fmt.Sprintf("parca: {address: '%s', name: server}", freePort(t))} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			disk, before := filepath.Join(dir, "disk"), filepath.Join(dir, "before")
			command(t, "truncate", "--size=16M", disk)
			command(t, "mkfs.ext4", "-q", disk)
			mountDisk(t, disk, before)
			d := newDelivery(t, 1)
			d.dir = filepath.Join(before, "data", ".spool")
			store, err := file.OpenStore(file.StoreOptions{Dir: filepath.Join(before, "data")})
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
				if got = afterFailure(t, disk, len(list)); got == want {
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

// afterFailure looks at a copy of the disk.
func afterFailure(t *testing.T, disk string, processes int) (k kept) {
	t.Helper()
	dir := t.TempDir()
	copied, at := filepath.Join(dir, "copy"), filepath.Join(dir, "after")
	command(t, "cp", disk, copied)
	mountDisk(t, copied, at)
	list, err := filepath.Glob(filepath.Join(at, "data", "*", "*", "cpu-*.pb.gz"))
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
	batches, err := filepath.Glob(filepath.Join(at, "data", ".spool", "*.spool"))
	if err != nil {
		t.Fatal(err)
	}
	k.batches = len(batches)
	return k
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(needs.Tool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func mountDisk(t *testing.T, disk, at string) {
	t.Helper()
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(needs.Tool(t, "mount"), "-o", "loop", disk, at).CombinedOutput(); err != nil {
		needs.Missing(t, "mount", "a loop device: "+string(out))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
