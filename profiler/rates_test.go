package profiler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/testprog"
)

// processTime is the CPU time that a process has used.
func processTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil { // clock_getcpuclockid(3)
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// steer calls SetRates n times until ctx ends.
func steer(ctx context.Context, p *Profiler, n int, every time.Duration, next func(i int) Rates) (changes int, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ; changes < n; changes++ {
		if err := p.SetRates(next(changes)); err != nil {
			return changes, err
		}
		select {
		case <-ctx.Done():
			return changes, nil
		case <-tick.C:
		}
	}
	<-ctx.Done()
	return changes, nil
}

// runSteered runs p until its targets have ended, while rates change.
func runSteered(t *testing.T, p *Profiler, n int, every time.Duration, next func(i int) Rates) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		changes, err := steer(ctx, p, n, every, next)
		if changes < n {
			err = errors.Join(err, fmt.Errorf("%d of %d changes", changes, n))
		}
		done <- err
	}()
	if err := p.Run(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// sumAndShares of a profile of spin.
func sumAndShares(prof *profile.Profile, want *truth) (sum, count int64, shares map[string]float64) {
	shares = map[string]float64{}
	for _, s := range prof.Sample {
		count += s.Value[0]
		sum += s.Value[1]
		for _, n := range names(s) {
			if _, ok := want.Paths[n]; ok {
				shares[n] += float64(s.Value[1])
			}
		}
	}
	for n := range shares {
		shares[n] /= float64(sum)
	}
	return sum, count, shares
}

// checkSpin compares with what spin knows of itself: within 2 %, and what so many samples cannot know better.
func checkSpin(t *testing.T, prof *profile.Profile, want *truth, before time.Duration, noise float64) {
	t.Helper()
	sum, count, shares := sumAndShares(prof, want)
	used := want.RusageNS - int64(before)
	off := math.Abs(float64(sum-used)) / float64(used)
	t.Logf("sum %v of %v: off by %.2f %%; %d samples; %v", time.Duration(sum), time.Duration(used), 100*off, count, prof.Comments)
	if off > 0.02+noise/math.Sqrt(float64(count)) {
		t.Errorf("weights sum to %v, rusage says %v: off by %.2f %%", time.Duration(sum), time.Duration(used), 100*off)
	}
	for name, path := range want.Paths {
		exact := float64(path.CPUNS) / float64(want.RusageNS)
		if limit := 0.02 + noise*math.Sqrt(exact*(1-exact)/float64(count)); math.Abs(shares[name]-exact) > limit {
			t.Errorf("%s has %.3f of the time, its thread's clock says %.3f", name, shares[name], exact)
		}
	}
}

// TestRatesOfCPU: a known split of CPU time, and its sum, over a run whose rates change 20 times, without a limit and with one
// that has most samples not be taken.
func TestRatesOfCPU(t *testing.T) {
	bin := testprog.Build(t, "spin", testprog.Options{})
	for name, limit := range map[string]time.Duration{"no limit": 0, "a limit": 500 * time.Microsecond} {
		t.Run(name, func(t *testing.T) {
			p, k := start(t, Config{Frequency: 499, Event: "cpu-clock", Comments: func() []string { return []string{"a word of the governor's"} }})
			proc := testprog.Start(t, bin, "-threads", "2", "-seconds", "10")
			if err := p.Add(proc.PID); err != nil {
				t.Fatal(err)
			}
			before := processTime(t, proc.PID)
			runSteered(t, p, 20, 400*time.Millisecond, func(i int) Rates {
				return Rates{Hz: []float64{97, 1999, 700, 1500}[i%4] * (0.8 + 0.2*rand.Float64()), Limit: limit, NoKernel: i%2 == 0}
			})
			want := readTruth(t, proc)
			checkSpin(t, k.profiles[0].Data, &want, before, 3)
			s := p.Stats()
			if limit != 0 && s.Throttled < s.Recorded || limit == 0 && s.Throttled != 0 {
				t.Errorf("%d samples were taken, %d not", s.Recorded, s.Throttled)
			}
			if s.Ticks < s.Recorded || s.BPFTime <= 0 || s.UserTime <= 0 || s.UserTime > 5*time.Second {
				t.Errorf("%+v", s)
			}
			comments := strings.Join(k.profiles[0].Data.Comments, "\n")
			for _, want := range []string{"event cpu-clock at ", " to ", "a word of the governor's"} {
				if !strings.Contains(comments, want) {
					t.Errorf("no %q in\n%s", want, comments)
				}
			}
			if strings.Contains(comments, "were not taken, since that would have cost too much") != (limit != 0) {
				t.Errorf("comments with a limit of %v:\n%s", limit, comments)
			}
		})
	}
}

// TestRatesOfWindows: Window changes, too; a profile says between which rates it was taken; what is off has no samples.
func TestRatesOfWindows(t *testing.T) {
	r := runWindows(t, Config{Frequency: 99, Event: "cpu-clock", Window: 100 * time.Millisecond, NoEmpty: true})
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads", "1", "-seconds", "600")
	if err := r.p.Add(proc.PID); err != nil {
		t.Fatal(err)
	}
	has := func(line string) func() bool {
		return func() bool {
			last := r.keep.last()
			return last != nil && slices.Contains(last.Data.Comments, line)
		}
	}
	r.holds(t, "a profile", has("event cpu-clock at 99 Hz"))
	if err := r.p.SetRates(Rates{Hz: 250, Window: 200 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	r.holds(t, "one of another rate", has("event cpu-clock at 250 Hz"))
	if d := r.keep.last().Duration; d < 150*time.Millisecond {
		t.Errorf("a window of %v", d)
	}
	if err := r.p.SetRates(Rates{Hz: 250, Off: true}); err != nil {
		t.Fatal(err)
	}
	var recorded uint64
	r.holds(t, "a window in which nothing is sampled", func() bool {
		before := recorded
		recorded = r.p.lastRead.Recorded
		return r.p.rate.pause(time.Now()) > 150*time.Millisecond && recorded == before
	})
	if err := r.p.SetRates(Rates{Hz: 300}); err != nil {
		t.Fatal(err)
	}
	r.holds(t, "it is on again", has("event cpu-clock at 300 Hz"))
}

// last profile that was kept, nil before.
func (k *keep) last() *export.Profile {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.profiles) == 0 {
		return nil
	}
	return k.profiles[len(k.profiles)-1]
}

// TestRatesRefused: errors say what cannot be, and leave the rest as it was.
func TestRatesRefused(t *testing.T) {
	p, _ := start(t, Config{})
	if err := p.SetRates(Rates{Hz: -1}); err == nil || !strings.Contains(err.Error(), "samples a second") || p.rate.hz.now != 99 {
		t.Errorf("%v; rate %v", err, p.rate.hz)
	}
	a, _ := start(t, Config{Kind: KindAllocs})
	if err := a.SetRates(Rates{AllocInterval: -1}); err == nil || !strings.Contains(err.Error(), "bytes between two samples") || a.cfg.AllocInterval != bpf.DefaultAllocInterval {
		t.Errorf("%v; interval %v", err, a.cfg.AllocInterval)
	}
}

// TestRatesOfAllocs: known volumes of allocation over a run in which interval, budget and limit change 20 times: within 5 %.
func TestRatesOfAllocs(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "alloc", testprog.Options{}), "-mb", "5000", "-rate", "500")
	r := runAllocs(t, Config{AllocBudget: defaultAllocBudget}, proc.PID)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := steer(ctx, r.p, 20, 450*time.Millisecond, func(i int) Rates {
			return Rates{
				AllocInterval: []int64{64 << 10, 2 << 20, 256 << 10}[i%3], AllocBudget: []float64{-1, 0.02, 0.1, 0.05}[i%4],
				Limit: []time.Duration{0, 300 * time.Microsecond}[i/4%2], Off: i%10 == 9,
			}
		})
		done <- err
	}()
	want := allocate(t, proc)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.end(t)
	prof := only(t, r.k)
	got, total := leaves(prof)
	off := math.Abs(float64(total-want.total)) / float64(want.total)
	s := r.p.Stats()
	t.Logf("%d of %d bytes: off by %.2f %%; %d samples, %d hits, %d throttled; programs took %v; %v", total, want.total, 100*off, s.Recorded, s.Hits,
		s.Throttled, s.BPFTime, prof.Comments)
	if off > 0.05 {
		t.Errorf("%d bytes of %d: off by %.2f %%", total, want.total, 100*off)
	}
	for name, bytes := range want.sites {
		if d := math.Abs(float64(got[name])/float64(total) - float64(bytes)/float64(want.total)); d > 0.05 {
			t.Errorf("%s has %d bytes of %d, want %d of %d", name, got[name], total, bytes, want.total)
		}
	}
	if s.Hits == 0 || s.BPFTime <= 0 || s.BadSpans > s.Hits/1000 {
		t.Errorf("%+v", s)
	}
}

// dropping is a replay of a program of which samples were not taken.
type dropping struct {
	*bpf.Replay
	throttled map[uint32]bpf.Loss
}

func (s dropping) Throttled() (map[uint32]bpf.Loss, error) { return s.throttled, nil }

// TestThrottledOnly: where no sample of a target was taken, one stands for all.
func TestThrottledOnly(t *testing.T) {
	proc := testprog.Start(t, testprog.Build(t, "spin", testprog.Options{}), "-threads", "1", "-seconds", "600")
	k := &keep{}
	source := dropping{bpf.NewReplay(bytes.NewReader(nil)), map[uint32]bpf.Loss{uint32(proc.PID): {Count: 7, Value: 7e7}}}
	p, err := New(Config{Source: source, Exporter: k})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := errors.Join(p.Add(proc.PID), p.Run(t.Context())); err != nil {
		t.Fatal(err)
	}
	prof := only(t, k)
	if len(prof.Sample) != 1 || prof.Sample[0].Value[1] != 7e7 || prof.Sample[0].Value[0] != 0 || names(prof.Sample[0])[0] != "[throttled]" {
		t.Errorf("%v", prof)
	}
	if !slices.Contains(prof.Comments, "7 samples were not taken, since that would have cost too much; the others stand for them") {
		t.Errorf("comments %q", prof.Comments)
	}
}
