package file

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestStoreSync: what was synced is there after a power failure. A file stands for the disk; its copy is what the disk has at
// the moment when the power fails.
func TestStoreSync(t *testing.T) {
	needs.Root(t)
	for _, n := range []int{1, fewFiles, fewFiles + 1, 200} {
		t.Run(fmt.Sprintf("%d files", n), func(t *testing.T) {
			dir := t.TempDir()
			disk := filepath.Join(dir, "disk")
			run(t, "truncate", "--size=16M", disk)
			run(t, "mkfs.ext4", "-q", disk)
			before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
			mount(t, disk, before)
			s := indexedStore(t, StoreOptions{Dir: filepath.Join(before, "data")})
			at := time.Now()
			store := func(pid int) {
				for i := range n {
					save(t, s, storeProfile("api", pid+i, at))
				}
			}
			store(1)
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			store(1001)
			run(t, "cp", disk, disk+"2")
			s.Close()
			mount(t, disk+"2", after)
			whole := 0
			for pid := 1; pid <= n; pid++ {
				list, err := filepath.Glob(filepath.Join(after, "data", "api", fmt.Sprintf("%d-*", pid), "cpu-*.pb.gz"))
				if err != nil || len(list) != 1 {
					t.Fatalf("process %d has %d files: %v", pid, len(list), err)
				}
				if st, err := os.Stat(list[0]); err != nil || st.Size() == 0 {
					t.Fatalf("%s: %v, %v", list[0], st, err)
				}
				if p := parseFile(t, list[0]); len(p.Sample) > 0 {
					whole++
				}
			}
			if whole != n {
				t.Errorf("%d of %d are whole", whole, n)
			}
			later, err := filepath.Glob(filepath.Join(after, "data", "api", "1???-*", "cpu-*.pb.gz"))
			t.Logf("of %d that were not synced %d have names, %v", n, len(later), err)
		})
	}
}

// TestStoreSyncOfWhatIsGone: what the limits removed meanwhile is nothing to sync; a Store that is closed says so.
func TestStoreSyncOfWhatIsGone(t *testing.T) {
	s := indexedStore(t, StoreOptions{Dir: t.TempDir(), MaxFiles: 1})
	for i := range 3 {
		save(t, s, storeProfile("api", 1+i, time.Now()))
	}
	for range 2 {
		if err := s.Sync(); err != nil {
			t.Error(err)
		}
	}
	save(t, s, storeProfile("api", 9, time.Now()))
	s.Close()
	if err := s.Sync(); err == nil {
		t.Error("a closed store was synced")
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(needs.Tool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// mount shows what is on a disk until the test ends.
func mount(t *testing.T, disk, at string) {
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

// BenchmarkStoreSync is what it costs to have 200 files on the disk.
func BenchmarkStoreSync(b *testing.B) {
	for _, n := range []int{1, fewFiles, 200} {
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			s, err := OpenStore(StoreOptions{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var cpu, took time.Duration
			rounds := 0
			for b.Loop() {
				for i := range n {
					if err := s.Export(b.Context(), storeProfile("api", 1+i, time.Now())); err != nil {
						b.Fatal(err)
					}
				}
				began, used := time.Now(), ownCPU(b)
				if err := s.Sync(); err != nil {
					b.Fatal(err)
				}
				cpu, took, rounds = cpu+ownCPU(b)-used, took+time.Since(began), rounds+1
			}
			b.ReportMetric(float64(cpu)/1e6/float64(rounds), "sync-cpu-ms/op")
			b.ReportMetric(float64(took)/1e6/float64(rounds), "sync-ms/op")
		})
	}
}

func ownCPU(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
