// Command heap allocates at known places, then keeps still, so that what its runtime knows about it stays as it is.
//
// It prints, once it is still, what runtime.MemProfile says, a line "bucket <allocs> <frees> <alloc bytes> <free bytes>
// <pc>,<pc>,..." for each record (hexadecimal, at most 32), then "ready". It lives for -life.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"
)

var kept []interface{} // what is in use

func main() {
	rate := flag.Int("rate", 512, "MemProfileRate")
	gcs := flag.Int("gcs", 2, "garbage collections at the end; 0: none ever")
	busy := flag.Bool("busy", false, "go on allocating instead of keeping still")
	profile := flag.String("profile", "", "write the own heap profile to `file`")
	life := flag.Duration("life", time.Minute, "how long to live when all is told")
	quiet := flag.Bool("quiet", false, "do not print the profile")
	many := flag.Int("many", 0, "this many further allocation sites")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	runtime.MemProfileRate = *rate
	sink = make([]byte, 16<<20) // the next sample is due by the rate of before
	if *gcs == 0 {
		debug.SetGCPercent(-1)
	}
	sites()
	manySites(*many)
	for i := 0; i < *gcs; i++ {
		runtime.GC()
	}
	debug.SetGCPercent(-1)
	if !*quiet {
		check(tell(*profile))
	}
	fmt.Println("ready")
	for end := time.Now().Add(*life); *busy && time.Now().Before(end); {
		sites()
		runtime.GC()
	}
	time.Sleep(*life)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// tell writes the profile, and prints the same.
func tell(profile string) error {
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.Lookup("heap").WriteTo(f, 0); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	records := make([]runtime.MemProfileRecord, 200000)
	n, ok := runtime.MemProfile(records, true)
	if !ok {
		return fmt.Errorf("%d records", n)
	}
	w := bufio.NewWriter(os.Stdout)
	for i := range records[:n] {
		r := &records[i]
		var pcs []string
		for _, pc := range r.Stack() {
			pcs = append(pcs, fmt.Sprintf("%x", pc))
		}
		fmt.Fprintln(w, "bucket", r.AllocObjects, r.FreeObjects, r.AllocBytes, r.FreeBytes, strings.Join(pcs, ","))
	}
	return w.Flush()
}

// sites allocates in all ways that a profile must tell apart.
func sites() {
	for i := 0; i < 200; i++ {
		keep(make([]byte, 1000))
		drop(make([]byte, 1000))
		inlined(i)
		recurse(i % 100)
		sink = func() interface{} { return new([64]int64) }() // a closure
		table := map[int]string{}
		for j := 0; j < 20; j++ {
			table[j] = strings.Repeat("x", j)
		}
		kept = append(kept, generic[int64](i), generic[[3]string](i))
		tiny = append(tiny, new(byte))
	}
	for i := 0; i < 5; i++ {
		keep(make([]byte, 1<<20))
	}
	done := make(chan bool)
	for i := 0; i < 50; i++ {
		go func() {
			drop(make([]int, 300))
			done <- true
		}()
		<-done
	}
	if len(kept) > 10000 {
		kept = kept[:0]
	}
}

var (
	sink interface{}
	tiny []*byte
)

//go:noinline
func keep(b []byte) { kept = append(kept, b) }

//go:noinline
func drop(b interface{}) { sink = b }

// inlined is expanded into its caller, with what it calls.
func inlined(i int) { sink = inner(i) }

func inner(i int) *[40]int {
	p := new([40]int)
	p[0] = i
	return p
}

//go:noinline
func recurse(n int) int {
	if n == 0 {
		keep(make([]byte, 700))
		return 0
	}
	return recurse(n-1) + 1
}

func generic[T any](n int) []T { return make([]T, n%7+1) }

// manySites makes n buckets: the runtime tells them apart by stack and by size.
func manySites(n int) {
	for i := 0; i < n; i++ {
		sink = path(i, 17)
	}
}

// path allocates under a stack that spells the bits of i.
//
//go:noinline
func path(i, bits int) *[64]int64 {
	switch {
	case bits == 0:
		return new([64]int64)
	case i>>(bits-1)&1 == 0:
		return path(i, bits-1)
	default:
		return path(i, bits-1)
	}
}
