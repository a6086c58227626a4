package file

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/disk"
)

// TestStoreSync: what was synced is there after a power failure.
func TestStoreSync(t *testing.T) {
	for _, n := range []int{1, fewFiles, fewFiles + 1, 200} {
		t.Run(fmt.Sprintf("%d files", n), func(t *testing.T) {
			d := disk.New(t)
			s := indexedStore(t, StoreOptions{Dir: filepath.Join(d.Dir, "data")})
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
			after := d.AfterFailure(t)
			s.Close()
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
