package spool

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// typical is a profile of 80 stacks of 5 to 40 frames, from 400 functions, as a busy service has in 10 s at 19 Hz.
func typical(seed uint64) *profile.Profile {
	rnd := rand.New(rand.NewPCG(seed%10, 0)) // ten programs
	m := &profile.Mapping{ID: 1, Start: 0x400000, Limit: 0x1400000, File: "/usr/local/bin/server", BuildID: fmt.Sprintf("%040x", seed%10), HasFunctions: true}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 52631578, TimeNanos: 1_800_000_000_000_000_000 + int64(seed),
		DurationNanos: 10_000_000_000, Mapping: []*profile.Mapping{m},
	}
	for i := range 400 {
		f := &profile.Function{
			ID: uint64(i + 1), Name: fmt.Sprintf("example.com/shop/internal/package%d.(*Type%d).Method%d", rnd.IntN(30), i, rnd.IntN(100)),
			Filename: fmt.Sprintf("/build/shop/internal/package%d/file%d.go", i/10, i%7), StartLine: int64(rnd.IntN(2000)),
		}
		f.SystemName = f.Name
		p.Function = append(p.Function, f)
		p.Location = append(p.Location, &profile.Location{
			ID: uint64(i + 1), Mapping: m, Address: 0x400000 + uint64(rnd.IntN(1<<24)), Line: []profile.Line{{Function: f, Line: f.StartLine + int64(i%40)}},
		})
	}
	for range 80 {
		s := &profile.Sample{Value: []int64{1 + int64(rnd.IntN(4)), 52631578}}
		for range 5 + rnd.IntN(36) {
			s.Location = append(s.Location, p.Location[rnd.IntN(len(p.Location))])
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

// service is the profile of one of many processes, with the labels of a pod.
func service(n int) *export.Profile {
	p := &export.Profile{
		Kind: "cpu", PID: 1000 + n, StartTicks: uint64(1_000_000 + n), Comm: "server", Service: fmt.Sprint("service-", n%20),
		Start: time.Now().Add(-10 * time.Second), Duration: 10 * time.Second, Data: typical(uint64(n)),
	}
	for _, l := range []string{"cluster=production-1", "container=server", "namespace=shop", "node=node-17.example.com", "image=registry.example.com/shop/server:1.2.3"} {
		name, value, _ := strings.Cut(l, "=")
		p.Labels = append(p.Labels, export.Label{Name: name, Value: value})
	}
	p.Labels = append(p.Labels, export.Label{Name: "pid", Value: fmt.Sprint(p.PID)}, export.Label{Name: "pod", Value: fmt.Sprintf("server-6f7c9d8b5-%05x", n)})
	return p
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWindow is what the profiles of one window cost: to encode them, to write them, and to take and acknowledge
// them for two destinations.
func BenchmarkWindow(b *testing.B) {
	for _, n := range []int{200, 2000} {
		var plain []*export.Profile
		for i := range n {
			plain = append(plain, service(i))
		}
		b.Run(fmt.Sprint("encode+append+commit/", n), func(b *testing.B) { benchCommit(b, plain, false) })
		for _, p := range plain {
			if _, err := p.Encode(); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprint("append+commit/", n), func(b *testing.B) { benchCommit(b, plain, false) })
		b.Run(fmt.Sprint("take+done by two/", n), func(b *testing.B) { benchCommit(b, plain, true) })
	}
}

func benchCommit(b *testing.B, profiles []*export.Profile, take bool) {
	s := open(b, Options{Dir: b.TempDir()})
	c := attach(b, s, "a", "b")
	var used time.Duration
	var disk int64
	encoded := profiles[0].Encoded != nil
	for b.Loop() {
		b.StopTimer()
		for _, p := range profiles {
			if !encoded {
				p.Encoded = nil
			}
		}
		if !take {
			b.StartTimer()
		}
		before := cpuTime(b)
		for _, p := range profiles {
			if err := s.Append(p); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Commit(); err != nil {
			b.Fatal(err)
		}
		if !take {
			used += cpuTime(b) - before
			b.StopTimer()
		}
		disk += s.Stats().Bytes
		if take {
			b.StartTimer()
		}
		before = cpuTime(b)
		for _, c := range c {
			if n := len(drain(b, c)); n != len(profiles) {
				b.Fatal(n)
			}
		}
		if take {
			used += cpuTime(b) - before
		}
		b.StartTimer()
	}
	per := float64(b.N * len(profiles))
	b.ReportMetric(float64(used.Microseconds())/per, "cpu-us/profile")
	b.ReportMetric(float64(disk)/per, "disk-B/profile")
}
