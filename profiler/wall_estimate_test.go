package profiler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/internal/testprog"
)

// pauser is a running program that knows how often and for how long it waits.
type pauser struct {
	*testprog.Proc
	in *os.File
}

// waits are those that have ended.
type waits struct{ Count, NS int64 }

func pauses(t *testing.T, o testprog.Options, args ...string) *pauser {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	return &pauser{testprog.StartWith(t, testprog.StartOptions{Stdin: in}, testprog.Build(t, "pauses", o), args...), out}
}

// waited are the waits until now, by function.
func (p *pauser) waited(t *testing.T, name string) (all map[string]waits) {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, name); err != nil {
		t.Fatal(err)
	}
	line := p.WaitLine(t, "mark "+name+" ", time.Minute)
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "mark "+name+" ")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// estimateOf is an estimate of both kinds, of so much time.
func estimateOf(t *testing.T, c WallConfig, d time.Duration, pid int) map[string]*profile.Profile {
	t.Helper()
	k := &keep{}
	c.Exporter = k
	w := NewWall(c)
	defer w.Close()
	if err := errors.Join(w.Estimate(pid, KindBlock), w.Estimate(pid, KindMutex)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Export(t.Context()); err != nil {
		t.Fatal(err)
	}
	return kept(k)
}

// contentionsIn are the events in a function.
func contentionsIn(p *profile.Profile, function string) (n int64) {
	for _, s := range p.Sample {
		if below(function)(s) {
			n += s.Value[0]
		}
	}
	return n
}

// TestWallEstimateBias: of waits of all lengths, on channels and mutexes, the delays are as the program counts them itself, and so are contentions, within
// bounds: those of what is hardly longer than two looks at a goroutine are too few. It makes no difference whether the runtime counts, too; what it
// counts is what the program does.
func TestWallEstimateBias(t *testing.T) {
	for _, version := range testprog.Versions() {
		for _, rate := range []string{"0", "1"} {
			if rate == "1" && version != "" && version != "1.18.10" && os.Getenv("PPROFD_FULL") == "" {
				continue
			}
			t.Run("go"+version+" rate "+rate, func(t *testing.T) {
				dir := t.TempDir()
				p := pauses(t, testprog.Options{Go: version}, "-rate", rate, "-dir", dir)
				for d := 10 * time.Second; ; d *= 2 { // chance vanishes in time, a bias does not
					before := p.waited(t, fmt.Sprint("before ", d))
					got := estimateOf(t, WallConfig{}, d, p.PID)
					after := p.waited(t, fmt.Sprint("after ", d))
					var wrong string
					for name, now := range after {
						was := before[name]
						wrong += checkEstimate(t, got, name, d, waits{now.Count - was.Count, now.NS - was.NS})
					}
					if rate == "1" {
						checkCounted(t, filepath.Join(dir, fmt.Sprint("after ", d)), after)
					}
					if wrong == "" {
						break
					}
					if d > 20*time.Second {
						t.Fatal(wrong)
					}
				}
			})
		}
	}
}

// bias is by what factor contentions may be off, for waits as long as the name of a function says.
var bias = map[string][2]float64{
	"50us": {0.03, 1.5}, // who looks takes a CPU from those who would end them
	"1ms":  {0.4, 2.5}, "20ms": {0.5, 2}, "200ms": {0.9, 2},
}

// checkEstimate compares with what has come to an end in a function: what is off by more than it may be is in the result.
func checkEstimate(t *testing.T, got map[string]*profile.Profile, name string, d time.Duration, truth waits) (wrong string) {
	t.Helper()
	for kind, p := range got {
		if kind == KindMutex && strings.HasPrefix(name, "receive") {
			continue
		}
		n, delay := contentionsIn(p, "main."+name), wallTime(p, below("main."+name))
		t.Logf("%s of %v, %s: %d contentions, %v; in truth %d, %v", kind, d, name, n, delay, truth.Count, time.Duration(truth.NS))
		share := float64(truth.NS) / float64(d)
		snapshots := d.Seconds() * defaultWallFrequency
		chance := 5 * math.Sqrt(share*(1-share)/snapshots) // 5 deviations of so many independent looks
		late := 150 * time.Microsecond.Seconds() * float64(truth.Count) / d.Seconds()
		if off := float64(delay)/float64(d) - share; off > chance || off < -chance-late { // what then waits for a CPU waits for no lock
			wrong += fmt.Sprintf("%s: %s: delay %v, want %v\n", kind, name, delay, time.Duration(truth.NS))
		}
		may := bias[strings.TrimPrefix(strings.TrimPrefix(name, "receive"), "lock")]
		if ratio := float64(n) / float64(truth.Count); ratio < may[0] || ratio > may[1] {
			wrong += fmt.Sprintf("%s: %s: %d contentions, want %v to %v of %d\n", kind, name, n, may[0], may[1], truth.Count)
		}
	}
	return wrong
}

// checkCounted compares what the program counts with what its runtime does.
func checkCounted(t *testing.T, path string, all map[string]waits) {
	t.Helper()
	own := readProfile(t, path+"."+KindBlock)
	for name, w := range all {
		n, delay := contentionsIn(own, "main."+name), wallTime(own, below("main."+name))
		if n > w.Count+1 || float64(n) < 0.95*float64(w.Count) || math.Abs(float64(delay)/float64(w.NS)-1) > 0.1 {
			t.Errorf("%s: %d contentions, %v by the runtime's account; %d, %v by the program's", name, n, delay, w.Count, time.Duration(w.NS))
		}
	}
}
