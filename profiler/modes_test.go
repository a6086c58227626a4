package profiler

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/aggregate"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestKnownStacksOfEveryBuild: the stacks, files, lines and labels of the program leaf do not depend on how it was built.
func TestKnownStacksOfEveryBuild(t *testing.T) {
	builds := []testprog.Options{
		{Flags: []string{"-trimpath"}, Strip: true},
		{Cgo: true, LDFlags: "-linkmode=external -extldflags=-static"},
	}
	for _, version := range []string{"1.18.10", "1.27.4"} {
		builds = append(builds,
			testprog.Options{Go: version, Strip: true},
			testprog.Options{Go: version, PIE: true},
			testprog.Options{Go: version, PIE: true, Cgo: true, Strip: true, LDFlags: "-linkmode=external"},
		)
	}
	for _, o := range builds {
		t.Run(o.String(), func(t *testing.T) {
			wantKnownStacks(t, testprog.Build(t, "leaf", o), direct)
		})
	}
}

// TestRaceDetector: the program with the race detector in it is C and Go; its own functions are named.
func TestRaceDetector(t *testing.T) {
	bin := testprog.Build(t, "spin", testprog.Options{Cgo: true, Flags: []string{"-race"}})
	proc := testprog.Start(t, bin, "-seconds", "20")
	prof, stats := sample(t, Config{Frequency: 499}, proc.PID, time.Second)
	n := countWith(prof, "main.thread")
	if n < 50 || n*10 < int64(stats.Recorded)*9 {
		t.Errorf("%d of %d samples are in the threads' function; %+v", n, stats.Recorded, stats)
	}
}

// TestRaceDetectorsCallers: the race detector's functions use the frame pointer as they like, and run on another stack; who
// has called them is known all the same.
func TestRaceDetectorsCallers(t *testing.T) {
	for _, version := range []string{"", "go1.21.13"} {
		for _, noLoop := range []bool{false, true} {
			o := testprog.Options{Go: version, Cgo: true, Flags: []string{"-race"}}
			t.Run(fmt.Sprint(o, noLoop), func(t *testing.T) {
				proc := testprog.Start(t, testprog.Build(t, "mixed", o), "-seconds", "20")
				prof, stats := sample(t, Config{Frequency: 499, noLoop: noLoop}, proc.PID, 2*time.Second)
				in, called := 0, 0
				for _, s := range prof.Sample {
					if !strings.HasPrefix(s.Location[0].Line[0].Function.Name, "__tsan_") {
						continue
					}
					in++
					if name := s.Location[len(s.Location)-1].Line[0].Function.Name; name != aggregate.BrokenFrame {
						called++
					}
				}
				t.Logf("%d of %d stacks in the race detector have a caller; %+v", called, in, stats)
				if in < 20 || called*10 < in*9 || stats.Broken*50 > stats.Recorded {
					t.Errorf("%d of %d stacks in the race detector have a caller; %+v", called, in, stats)
				}
			})
		}
	}
}

// TestKnownStacksOfEveryPlace: nor do they depend on where the executable is by now.
func TestKnownStacksOfEveryPlace(t *testing.T) {
	for _, c := range []struct {
		name string
		run  runner
	}{
		{"deleted", deleted},
		{"replaced by another program", replaced},
		{"in another mount namespace", otherNamespace},
		{"unpacked into anonymous memory", unpacked},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantKnownStacks(t, testprog.Build(t, "leaf", testprog.Options{Strip: true}), c.run)
		})
	}
}

// copyOf is a copy that may be changed.
func copyOf(t *testing.T, bin string) string {
	t.Helper()
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(bin))
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func deleted(t *testing.T, o testprog.StartOptions, bin string, args ...string) *testprog.Proc {
	t.Helper()
	path := copyOf(t, bin)
	p := direct(t, o, path, args...)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return p
}

func replaced(t *testing.T, o testprog.StartOptions, bin string, args ...string) *testprog.Proc {
	t.Helper()
	path := copyOf(t, bin)
	p := direct(t, o, path, args...)
	if err := os.Rename(copyOf(t, testprog.Build(t, "spin", testprog.Options{})), path); err != nil {
		t.Fatal(err)
	}
	return p
}

// otherNamespace runs the program from a file system that only its own mount namespace has.
func otherNamespace(t *testing.T, o testprog.StartOptions, bin string, args ...string) *testprog.Proc {
	t.Helper()
	needs.Root(t)
	const script = `mount -t tmpfs none "$0" && cp "$1" "$0/hidden" && shift && exec "$0/hidden" "$@"`
	return direct(t, o, needs.Tool(t, "unshare"), append([]string{"-m", "sh", "-c", script, t.TempDir(), bin}, args...)...)
}

// unpacked runs the program as a packer's stub does: copied into anonymous memory by a loader without section headers.
func unpacked(t *testing.T, o testprog.StartOptions, bin string, args ...string) *testprog.Proc {
	t.Helper()
	return direct(t, o, testprog.Loader(t), append([]string{bin}, args...)...)
}

// TestUnknownGoVersion: a version that no table knows keeps its stacks, and says what is missing.
func TestUnknownGoVersion(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      testprog.Options
		labels bool
	}{
		{"with DWARF the labels stay", testprog.Options{Go: "1.25.7"}, true},
		{"without DWARF they stay where a known layout is verified, or are missed aloud", testprog.Options{Go: "1.25.7", Strip: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin := withVersion(t, testprog.Build(t, "labels", c.o), "go1.25.7", "go1.99.7")
			proc := testprog.Start(t, bin, "-seconds", "4")
			prof, stats := sample(t, Config{Frequency: 499, NoKernel: true}, proc.PID, 2*time.Second)
			sets := labelSets(t, proc)
			var n int64
			for fn := range sets {
				n += countWith(prof, fn)
			}
			if n < 50 || n*10 < int64(stats.Recorded)*8 {
				t.Errorf("%d of %d samples are in the functions with labels", n, stats.Recorded)
			}
			notes := strings.Join(stats.Notes, "\n")
			_, wrong := checkLabels(prof, sets)
			if c.labels && wrong*50 > n || wrong > 0 && !strings.Contains(notes, "labels") {
				t.Errorf("%d of %d samples have wrong labels, notes %q", wrong, n, notes)
			}
			t.Logf("%d samples, %d without their labels; notes %q", n, wrong, notes)
		})
	}
}

// withVersion is a copy with another version wherever the file has it.
func withVersion(t *testing.T, bin, from, to string) string {
	t.Helper()
	path := copyOf(t, bin)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(from)) {
		t.Fatalf("%s does not hold %s", bin, from)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte(from), []byte(to)), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
