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
				all := make(map[string]*both)
				for round := range 4 { // chance vanishes in time, a bias does not; what was off stays in the sums
					before := p.waited(t, fmt.Sprint("before ", round))
					got := estimateOf(t, WallConfig{}, biasSeconds*time.Second, p.PID)
					after := p.waited(t, fmt.Sprint("after ", round))
					addEstimates(all, got, before, after)
					if rate == "1" {
						checkCounted(t, filepath.Join(dir, fmt.Sprint("after ", round)), after)
					}
					wrong := checkEstimates(t, all, float64(biasSeconds*(round+1)))
					if wrong == "" {
						return
					}
					if round == 3 {
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

// both are what is estimated and what is true.
type both struct{ estimate, truth waits }

// biasSeconds is how long a profile of TestWallEstimateBias is.
const biasSeconds = 10

// addEstimates adds what was estimated of each function, by kind, and what has come to an end in it meanwhile.
func addEstimates(all map[string]*both, got map[string]*profile.Profile, before, after map[string]waits) {
	for kind, p := range got {
		for name, now := range after {
			if kind == KindMutex && strings.HasPrefix(name, "receive") {
				continue
			}
			sum := all[kind+" "+name]
			if sum == nil {
				sum = &both{}
				all[kind+" "+name] = sum
			}
			sum.estimate.Count += contentionsIn(p, "main."+name)
			sum.estimate.NS += wallTime(p, below("main."+name)).Nanoseconds()
			sum.truth.Count += now.Count - before[name].Count
			sum.truth.NS += now.NS - before[name].NS
		}
	}
}

// checkEstimates compares the sums of so many seconds: what is off by more than it may be is in the result.
func checkEstimates(t *testing.T, all map[string]*both, seconds float64) (wrong string) {
	t.Helper()
	for name, b := range all {
		t.Logf("%s, %v s: %d contentions, %v; in truth %d, %v", name, seconds, b.estimate.Count, time.Duration(b.estimate.NS), b.truth.Count, time.Duration(b.truth.NS))
		share := float64(b.truth.NS) / 1e9 / seconds
		chance := 5 * math.Sqrt(share*(1-share)/seconds/defaultWallFrequency)       // 5 deviations of so many independent looks
		late := 150 * time.Microsecond.Seconds() * float64(b.truth.Count) / seconds // what then waits for a CPU waits for no lock
		if off := float64(b.estimate.NS)/1e9/seconds - share; off > chance || off < -chance-late {
			wrong += fmt.Sprintf("%s: delay %v, want %v\n", name, time.Duration(b.estimate.NS), time.Duration(b.truth.NS))
		}
		may := bias[name[strings.IndexAny(name, "0123456789"):]]
		if ratio := float64(b.estimate.Count) / float64(b.truth.Count); ratio < may[0] || ratio > may[1] {
			wrong += fmt.Sprintf("%s: %d contentions, want %v to %v of %d\n", name, b.estimate.Count, may[0], may[1], b.truth.Count)
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
