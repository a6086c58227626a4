package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/profiler"
)

// hz is how often the agents sample each CPU.
const hz = 99

// window is what an agent found in one of the windows of a row, and how that agrees with the truth.
type window struct {
	Agent   string
	Samples int64

	Got, Ceiling       testprog.Agreement    // of the agent's profile, and of the process's next one, with the window's own
	Any, AnyCeiling    testprog.Agreement    // with all windows of the row except the next
	SameMix            float64               // share of exact stacks with each path weighed as in the process's next profile
	Mix                map[string][2]float64 // share of each path: of the agent's profile, and of the process's next one
	Deep, DeepSamples  int64                 // samples in the recursion: whose stack is whole, and all
	SampledNS, UsedNS  int64                 // CPU time: by the samples, and by the kernel's clock of the process; 0: not taken
	Lost, Bad, Records uint64                // of pprofd: lost samples, broken and truncated stacks, all
}

// taken is the profile that an agent took.
type taken struct {
	agent   string
	window  int // number of the window, from 1
	profile *profile.Profile
	used    time.Duration // CPU time of the process meanwhile; 0: not taken
	stats   profiler.Stats
}

// sampler takes a profile of a process for d.
type sampler func(ctx context.Context, pid int, d time.Duration) (taken, error)

type measurer struct {
	windows int
	length  time.Duration
	harness *agents.Harness // made for the first row with peers
}

func newMeasurer(c *config) *measurer { return &measurer{windows: c.windows, length: c.length} }

func (m *measurer) Close() {
	if m.harness != nil {
		m.harness.Close()
	}
}

// attempt measures a row. That its program does not build or run is a result, not an error.
func (m *measurer) attempt(ctx context.Context, r row) (attempt, error) {
	bin, err := testprog.BuildFile("mixed", r.options())
	if err != nil {
		return attempt{Row: r.name(), Why: "does not build: " + lastLine(err.Error())}, nil
	}
	return m.measure(ctx, r, bin)
}

// measure measures the program of a row.
func (m *measurer) measure(ctx context.Context, r row, bin string) (attempt, error) {
	a := attempt{Row: r.name(), Load: loadAverage()}
	samplers, err := m.samplers(ctx, r)
	if err != nil {
		return a, err
	}
	dir, err := os.MkdirTemp("", "pprofd-accuracy-*")
	if err != nil {
		return a, err
	}
	defer os.RemoveAll(dir)
	prefix := filepath.Join(dir, "window")
	turns := m.windows * len(samplers)
	proc, err := testprog.Launch(testprog.StartOptions{Env: []string{"GODEBUG=asyncpreemptoff=1"}}, bin,
		"-profile", prefix, "-windows", strings.TrimSuffix(strings.Repeat(fmt.Sprint(m.length.Seconds(), ","), 10*turns+10), ","))
	if err != nil {
		a.Why = "does not run: " + lastLine(err.Error())
		return a, nil
	}
	defer proc.Stop()
	found, err := m.sampleAll(ctx, proc, samplers, turns)
	if err != nil {
		return a, err
	}
	truths, err := readTruths(prefix, found[len(found)-1].window+1)
	if err != nil {
		return a, err
	}
	a.Windows, err = compareAll(found, truths, r.comparison())
	return a, err
}

// samplers are the agents of a row, which take turns.
func (m *measurer) samplers(ctx context.Context, r row) ([]sampler, error) {
	if !r.peers {
		return []sampler{sampleOurs}, nil
	}
	if m.harness == nil {
		var err error
		if m.harness, err = agents.New(ctx); err != nil {
			return nil, err
		}
	}
	return []sampler{sampleOurs, m.peer("perf", perfProfile), m.peer("bpftrace", bpftraceProfile)}, nil
}

// sampleAll lets the samplers take turns, each in the next window that begins, and waits for the window after the last.
func (m *measurer) sampleAll(ctx context.Context, proc *testprog.Proc, samplers []sampler, turns int) ([]taken, error) {
	patience := 2*m.length + 30*time.Second
	var found []taken
	for turn := range turns {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		i := begun(proc) + 1
		if _, err := proc.Await(fmt.Sprintf("window %d began", i), patience); err != nil {
			return nil, err
		}
		got, err := samplers[turn%len(samplers)](ctx, proc.PID, m.length*9/10) // it ends before the window does
		if err != nil {
			return nil, err
		}
		got.window = i
		found = append(found, got)
	}
	_, err := proc.Await(fmt.Sprintf("window %d ended", found[len(found)-1].window+1), patience)
	return found, err
}

// begun is the number of windows that have begun.
func begun(proc *testprog.Proc) int {
	n := 0
	for _, line := range proc.Lines() {
		if strings.HasPrefix(line, "window ") && strings.HasSuffix(line, " began") {
			n++
		}
	}
	return n
}

// readTruths reads the process's own profiles of the windows 1 to n; the first is at index 1.
func readTruths(prefix string, n int) ([]*profile.Profile, error) {
	truths := make([]*profile.Profile, n+1)
	for i := 1; i <= n; i++ {
		data, err := os.ReadFile(fmt.Sprint(prefix, i))
		if err != nil {
			return nil, err
		}
		if truths[i], err = profile.ParseData(data); err != nil {
			return nil, fmt.Errorf("the process's own profile of window %d: %w", i, err)
		}
	}
	return truths, nil
}

func compareAll(found []taken, truths []*profile.Profile, o *testprog.CompareOptions) ([]window, error) {
	var windows []window
	for _, t := range found {
		w, err := compare(t, truths, o)
		if err != nil {
			return nil, err
		}
		windows = append(windows, w)
	}
	return windows, nil
}

// compare judges what an agent took in a window.
func compare(t taken, truths []*profile.Profile, o *testprog.CompareOptions) (window, error) {
	next := truths[t.window+1]
	var others []*profile.Profile
	for i, truth := range truths {
		if i > 0 && i != t.window+1 {
			others = append(others, truth)
		}
	}
	all, err := profile.Merge(others)
	if err != nil {
		return window{}, fmt.Errorf("merging the process's own profiles: %w", err)
	}
	if t.agent != ours {
		nameAs(all, t.profile)
	}
	truth := truths[t.window]
	w := window{
		Agent: t.agent, Samples: total(t.profile, 0),
		Got: testprog.Compare(truth, t.profile, o), Ceiling: testprog.Compare(truth, next, o),
		Any: testprog.Compare(all, t.profile, o), AnyCeiling: testprog.Compare(all, next, o),
		SampledNS: total(t.profile, 1), UsedNS: int64(t.used),
		Lost: t.stats.Lost, Bad: t.stats.Broken + t.stats.Truncated, Records: t.stats.Recorded,
	}
	w.SameMix, w.Mix = sameMix(truth, t.profile, next, o)
	w.Deep, w.DeepSamples = judgeRecursion(t.profile)
	return w, nil
}

func total(p *profile.Profile, value int) (sum int64) {
	for _, s := range p.Sample {
		sum += s.Value[value]
	}
	return sum
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if errors.Is(err, fs.ErrNotExist) {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
