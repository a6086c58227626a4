// Command labels burns CPU in goroutines with sets of pprof labels of different number, length and kind. Before it
// begins it prints one line "set FUNCTION {...}" for each, with the labels that samples in FUNCTION must have.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"
)

var sink [8]uint64

// sets have one function each, so that samples tell which labels they should have.
var sets = []struct {
	name   string
	burn   func(end time.Time)
	labels map[string]string
}{
	{"main.none", none, nil},
	{"main.one", one, numbered(1, 1, 1)},
	{"main.eight", eight, numbered(8, 3, 10)},
	{"main.thirtytwo", thirtytwo, numbered(32, 20, 40)},
	{"main.forty", forty, numbered(40, 5, 5)},
	{"main.long", long, map[string]string{
		strings.Repeat("k", 256): strings.Repeat("v", 256), "short": "x",
		strings.Repeat("K", 300): strings.Repeat("V", 4000), "exact": strings.Repeat("w", 257)}},
	{"main.unicode", unicode, map[string]string{
		"schlüssel": "größe", "键": "值", "😀": "a\"b\\c\nd", "split": strings.Repeat("é", 129), "notutf8": "\xff\xfe"}},
	{"main.empty", empty, map[string]string{"novalue": "", "": "nokey", "normal": "value"}},
}

// numbered makes n labels with keys and values padded to the given lengths.
func numbered(n, keyLen, valueLen int) map[string]string {
	m := map[string]string{}
	for i := 0; i < n; i++ {
		key, value := fmt.Sprintf("k%02d", i), fmt.Sprintf("v%02d", i)
		if n == 1 {
			key, value = "k", "v"
		}
		m[pad(key, keyLen)] = pad(value, valueLen)
	}
	return m
}

func pad(s string, n int) string {
	for len(s) < n {
		s += "."
	}
	return s
}

func main() {
	seconds := flag.Float64("seconds", 10, "run for this long")
	only := flag.String("only", "", "run only the set of this `function`")
	flag.Parse()
	end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	for _, set := range sets {
		if *only != "" && *only != set.name {
			continue
		}
		var pairs []string
		for k, v := range set.labels {
			pairs = append(pairs, k, v)
		}
		burn := set.burn
		go pprof.Do(context.Background(), pprof.Labels(pairs...), func(context.Context) { burn(end) })
		out, _ := json.Marshal(hexed(set.labels))
		fmt.Printf("set %s %s\n", set.name, out)
	}
	time.Sleep(50 * time.Millisecond) // every goroutine has its labels
	fmt.Println("ready", os.Getpid())
	time.Sleep(time.Until(end))
}

// hexed keeps keys and values that are not valid UTF-8 exact in JSON: both are printed in hexadecimal.
func hexed(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[fmt.Sprintf("%x", k)] = fmt.Sprintf("%x", v)
	}
	return out
}

func spin(end time.Time, slot int) {
	for time.Now().Before(end) {
		sink[slot] = loop(500000, sink[slot])
	}
}

//go:noinline
func loop(n int, x uint64) uint64 {
	for i := 0; i < n; i++ {
		x ^= x<<13 ^ uint64(i)
		x ^= x >> 7
	}
	return x
}

//go:noinline
func none(end time.Time) { spin(end, 0) }

//go:noinline
func one(end time.Time) { spin(end, 1) }

//go:noinline
func eight(end time.Time) { spin(end, 2) }

//go:noinline
func thirtytwo(end time.Time) { spin(end, 3) }

//go:noinline
func forty(end time.Time) { spin(end, 4) }

//go:noinline
func long(end time.Time) { spin(end, 5) }

//go:noinline
func unicode(end time.Time) { spin(end, 6) }

//go:noinline
func empty(end time.Time) { spin(end, 7) }
