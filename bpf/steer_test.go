package bpf

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// processTime is the CPU time of this process.
func processTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// preferred lets the thread that it is called on run before others, so that what is burnt does not depend on what else the machine
// does. Nice levels do not do that where processes have control groups of their own.
func preferred(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0); err != nil {
		t.Logf("scheduling class: %v", err)
	}
}

// ordinary undoes preferred.
func ordinary(t *testing.T) {
	t.Helper()
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0); err != nil {
		t.Error(err)
	}
	runtime.UnlockOSThread()
}

// TestSetRate: weights add up to the CPU time, although periods are cut short, by none or by many changes.
func TestSetRate(t *testing.T) {
	for name, every := range map[string]time.Duration{"every 200 ms": 200 * time.Millisecond, "every 20 ms": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			p := load(t, Options{Frequency: 499, Event: EventCPUClock, RingBytes: 8 << 20})
			if err := errors.Join(p.SetTarget(uint32(os.Getpid()), &Target{}), p.Start()); err != nil {
				t.Fatal(err)
			}
			preferred(t)
			defer ordinary(t)
			before := processTime(t)
			for range int(4 * time.Second / every) {
				if err := p.SetRate(100 + 1900*rand.Float64()); err != nil {
					t.Fatal(err)
				}
				burn(every)
			}
			used := processTime(t) - before
			if err := p.Stop(); err != nil {
				t.Fatal(err)
			}
			var sum time.Duration
			weights := map[int64]bool{}
			drain(t, p, func(r *Record) {
				sum += time.Duration(r.Sample.Value)
				weights[r.Sample.Value] = true
				if v := r.Sample.Value; v <= 0 || v > int64(time.Second/40) {
					t.Errorf("a sample weighs %v", time.Duration(v))
				}
			})
			s, err := p.Stats()
			if err != nil || s.LostRing > 0 {
				t.Fatalf("%+v, %v", s, err)
			}
			t.Logf("%v of %v, %d samples of %d weights, %d ticks", sum, used, s.Recorded, len(weights), s.Ticks)
			if d := math.Abs(float64(sum-used)) / float64(used); d > 0.02 {
				t.Errorf("weights sum to %v, the process has used %v: off by %.1f %%", sum, used, 100*d)
			}
		})
	}
}

// TestSetRateRefused: what cannot be is refused, and changes nothing.
func TestSetRateRefused(t *testing.T) {
	p := load(t, Options{})
	for _, hz := range []float64{0, -1, MaxRate + 1, math.NaN(), math.Inf(1)} {
		if err := p.SetRate(hz); err == nil || !strings.Contains(err.Error(), "samples a second are not in") {
			t.Errorf("%v Hz: %v", hz, err)
		}
	}
	if p.settings.Generation != 0 {
		t.Error("the rate has changed")
	}
	if err := errors.Join(p.SetRate(MinRate), p.SetRate(MaxRate)); err != nil {
		t.Error(err)
	}
}

// TestSetLimit: samples beyond the limit are counted, with their weights, and what programs take stays below it.
func TestSetLimit(t *testing.T) {
	p := load(t, Options{Frequency: 1999, Event: EventCPUClock, RingBytes: 8 << 20})
	const limit = 500 * time.Microsecond // a second
	pid := uint32(os.Getpid())
	if err := errors.Join(p.SetTarget(pid, &Target{}), p.SetLimit(limit), p.Start()); err != nil {
		t.Fatal(err)
	}
	preferred(t)
	defer ordinary(t)
	began, before := time.Now(), processTime(t)
	burn(3 * time.Second)
	used, wall := processTime(t)-before, time.Since(began)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	var sum time.Duration
	n := uint64(0)
	drain(t, p, func(r *Record) { n++; sum += time.Duration(r.Sample.Value) })
	s, err := p.Stats()
	throttled, errThrottled := p.Throttled()
	if err := errors.Join(err, errThrottled); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d taken, %d throttled; programs took %v in %v; %v of %v", s.Recorded, s.Throttled, s.RunTime.Samples, wall, sum, used)
	if n != s.Recorded || s.Throttled != throttled[pid].Count || s.Throttled < 2*s.Recorded || s.Recorded == 0 {
		t.Errorf("read %d, counted %+v, throttled %+v", n, s, throttled)
	}
	// A slot more than the time has, and a sample of each CPU too many in each.
	slots := float64(wall)/float64(slot) + 1
	most := slots * (float64(limit)*slot.Seconds() + float64(runtime.NumCPU())*float64(50*time.Microsecond))
	if float64(s.RunTime.Samples) > most {
		t.Errorf("programs took %v, %v are allowed", s.RunTime.Samples, time.Duration(most))
	}
	all := sum + time.Duration(throttled[pid].Value)
	if d := math.Abs(float64(all-used)) / float64(used); d > 0.03 {
		t.Errorf("what was taken and what was not add up to %v of %v", all, used)
	}
	if err := errors.Join(p.ForgetLosses(pid), p.SetLimit(0), p.Start()); err != nil {
		t.Fatal(err)
	}
	burn(300 * time.Millisecond)
	if now, err := p.Stats(); err != nil || now.Throttled != s.Throttled || now.Recorded < s.Recorded+100 {
		t.Errorf("without a limit: %+v, before %+v, %v", now, s, err)
	}
	if left, err := p.Throttled(); err != nil || len(left) != 0 {
		t.Errorf("throttled %v, %v", left, err)
	}
}

// TestSetKernelStacks: they come and go.
func TestSetKernelStacks(t *testing.T) {
	p := load(t, Options{Frequency: 1999, Event: EventCPUClock, RingBytes: 8 << 20})
	if err := errors.Join(p.SetTarget(uint32(os.Getpid()), &Target{}), p.Start()); err != nil {
		t.Fatal(err)
	}
	for _, on := range []bool{true, false, true} {
		if err := p.SetKernelStacks(on); err != nil {
			t.Fatal(err)
		}
		drain(t, p, func(*Record) {})
		inKernel, stacks := 0, 0
		first := true
		for late := time.Now().Add(time.Minute); inKernel < 20 && time.Now().Before(late); {
			readMaps(t, 300*time.Millisecond)
			drain(t, p, func(r *Record) {
				if first { // may have been on the way
					first = false
					return
				}
				if r.Sample.Flags&FlagKernel != 0 {
					inKernel++
				}
				if len(r.Sample.Kernel) > 0 {
					stacks++
				}
			})
		}
		t.Logf("kernel stacks %t: %d of %d samples in the kernel", on, stacks, inKernel)
		if inKernel < 20 || on != (stacks > 0) {
			t.Errorf("kernel stacks %t: %d of %d samples have one", on, stacks, inKernel)
		}
	}
}

// readMaps keeps the kernel busy.
func readMaps(t *testing.T, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := os.ReadFile("/proc/self/maps"); err != nil {
			t.Fatal(err)
		}
	}
}

//go:noinline
func burnFirst(until func() bool) {
	for !until() {
		spinFirst()
	}
}

//go:noinline
func burnSecond(until func() bool) {
	for !until() {
		spinSecond()
	}
}

//go:noinline
func spinFirst() {
	for i := range uint64(2000) {
		burnt ^= burnt<<13 ^ i
	}
}

//go:noinline
func spinSecond() {
	for i := range uint64(2000) {
		burnt ^= burnt<<11 ^ i
	}
}

// TestJitter: a program that does one thing in the first half of each period, and another one in the second half, is seen doing one
// of them only, as long as the rate is the one that both were told; after SetRate each CPU has a period of its own.
func TestJitter(t *testing.T) {
	needs.BPF(t)
	onOneCPU(t)
	preferred(t)
	defer ordinary(t)
	const hz, period = 250, time.Second / 250
	p := load(t, Options{Frequency: hz, Event: EventCPUClock, RingBytes: 8 << 20})
	if err := errors.Join(p.SetTarget(uint32(os.Getpid()), &Target{}), p.Start()); err != nil {
		t.Fatal(err)
	}
	burn(200 * time.Millisecond)
	var phase time.Duration // of the ticks
	drain(t, p, func(r *Record) { phase = time.Duration(r.Sample.Time) % period })
	locked := shareOfEarly(t, p, period, phase)
	var seen []float64
	for range 5 {
		if err := p.SetRate(hz); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, shareOfEarly(t, p, period, phase))
	}
	t.Logf("half of the time is seen as %.2f; after SetRate as %.2f", locked, seen)
	if locked < 0.8 {
		t.Errorf("in lock-step with the samples half of the time is seen as %.2f: the test does not test", locked)
	}
	sum := 0.0
	for _, s := range seen {
		sum += s / float64(len(seen))
	}
	if slices.Sort(seen); math.Abs(sum-0.5) > 0.1 || math.Abs(seen[len(seen)/2]-0.5) > 0.1 {
		t.Errorf("half of the time is seen as %.2f", seen)
	}
}

// onOneCPU keeps the test's goroutine on the CPU where it is.
func onOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}

// shareOfEarly burns for a second, around phase in each period in burnFirst, and tells its share of the samples.
func shareOfEarly(t *testing.T, p *Probes, period, phase time.Duration) float64 {
	t.Helper()
	now := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Error(err)
		}
		return time.Duration(ts.Nano())
	}
	inFirst := func() bool { return (now()-phase+period+period/4)%period < period/2 }
	drain(t, p, func(*Record) {})
	for end := now() + time.Second; now() < end; {
		burnFirst(func() bool { return !inFirst() })
		burnSecond(inFirst)
	}
	first, second := 0, 0
	drain(t, p, func(r *Record) {
		for _, pc := range append([]uint64{r.Sample.Segments[0].PC}, r.Sample.Segments[0].Frames...) {
			switch f := runtime.FuncForPC(uintptr(pc)); {
			case f == nil:
				continue
			case strings.HasSuffix(f.Name(), "First"): // the chain of frame pointers may lack the caller of a leaf
				first++
			case strings.HasSuffix(f.Name(), "Second"):
				second++
			default:
				continue
			}
			break
		}
	})
	if first+second < 50 {
		t.Fatalf("%d and %d samples", first, second)
	}
	return float64(first) / float64(first+second)
}

// TestRunTime: what the programs say that they take is what the kernel's statistics say, within a fifth.
func TestRunTime(t *testing.T) {
	p := load(t, Options{Frequency: 4999, Event: EventCPUClock, RingBytes: 16 << 20})
	stats, err := EnableStats()
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	if err := errors.Join(p.SetTarget(uint32(os.Getpid()), &Target{}), p.Start()); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		preferred(t)
		burn(2 * time.Second)
		ordinary(t)
		close(done)
	}()
	preferred(t)
	burn(2 * time.Second)
	ordinary(t)
	<-done
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	own, err := p.Stats()
	programs, errPrograms := p.Programs()
	if err := errors.Join(err, errPrograms); err != nil {
		t.Fatal(err)
	}
	kernel := programs[0]
	t.Logf("%v of %d samples, %d ticks; the kernel says %v of %d runs", own.RunTime.Samples, own.Recorded+own.LostRing, own.Ticks, kernel.Runtime, kernel.Runs)
	if own.Ticks != kernel.Runs {
		t.Errorf("%d ticks, the kernel has counted %d", own.Ticks, kernel.Runs)
	}
	if share := float64(own.RunTime.Samples) / float64(kernel.Runtime); math.Abs(share-1) > 0.2 {
		t.Errorf("the programs say %v, the kernel %v", own.RunTime.Samples, kernel.Runtime)
	}
}
