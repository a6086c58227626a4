// Command pgo spends its time in calls that the compiler improves if a profile says that they are hot: functions too
// large to be inlined without one, and calls through an interface and a function value that have one usual target.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

var sink uint64

type hasher interface {
	hash(p []byte) uint64
}

type fnv struct{ seed uint64 }

type sum struct{ seed uint64 }

// hash is above the budget of 80 nodes for inlining and below that of 2000 for hot functions.
func (f *fnv) hash(p []byte) uint64 {
	h := f.seed
	for _, b := range p {
		h ^= uint64(b)
		h *= 1099511628211
		h ^= h >> 29
		if h&0xff == 0 {
			h += uint64(len(p)) * 31
			h ^= h << 7
			h -= f.seed
		}
		if b == 0 {
			h ^= h >> 3
			h += h<<11 ^ f.seed
		}
	}
	return h ^ h>>32
}

func (s *sum) hash(p []byte) uint64 {
	h := s.seed
	for _, b := range p {
		h += uint64(b)
	}
	return h
}

// mix is too large to be inlined without a profile.
func mix(a, b uint64) uint64 {
	for i := 0; i < 6; i++ {
		a ^= b << 13
		b ^= a >> 7
		a += b << 17
		if a&1 == 0 {
			a ^= b >> 5
			b += a << 3
		} else {
			b ^= a << 9
			a -= b >> 11
		}
		a, b = b^a>>31, a+b<<3
		a += b<<1 ^ b>>2
		b ^= a<<5 + a>>6
	}
	return a ^ b
}

// cold is as large as mix, and is never hot.
func cold(a, b uint64) uint64 {
	for i := 0; i < 6; i++ {
		a ^= b << 11
		b ^= a >> 9
		a += b << 15
		if a&1 == 0 {
			a ^= b >> 4
			b += a << 2
		} else {
			b ^= a << 8
			a -= b >> 10
		}
		a, b = b^a>>30, a+b<<2
		a += b<<2 ^ b>>1
		b ^= a<<6 + a>>5
	}
	return a ^ b
}

//go:noinline
func viaInterface(h hasher, p []byte, n int) (out uint64) {
	for i := 0; i < n; i++ {
		out ^= h.hash(p)
	}
	return out
}

//go:noinline
func viaCall(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x = mix(x, uint64(i))
	}
	return x
}

//go:noinline
func seldom(x uint64) uint64 { return cold(x, 1) + viaInterface(&sum{x}, []byte("seldom"), 1) }

func main() {
	seconds := flag.Float64("seconds", 10, "run for this long")
	profile := flag.String("profile", "", "write an own CPU profile to `file`")
	flag.Parse()
	data := []byte("a few bytes of text \x00 to be hashed over and over again")
	stop := profileTo(*profile)
	fmt.Println("ready", os.Getpid())
	end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	for h := (hasher)(&fnv{14695981039346656037}); time.Now().Before(end); {
		sink += viaInterface(h, data, 5000)
		sink += viaCall(30000, sink)
		sink += seldom(sink)
	}
	stop()
	fmt.Println("done")
}

func profileTo(name string) (stop func()) {
	if name == "" {
		return func() {}
	}
	f, err := os.Create(name)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}
