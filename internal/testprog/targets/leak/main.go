// Command leak allocates at two known places and keeps all of it, until somebody ends it: three bytes in large for each in
// small. It prints "ready", and begins once the file -begin exists.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

const (
	largeSize = 48 << 10
	smallSize = 1 << 10
)

var kept [][]byte

func main() {
	begin := flag.String("begin", "", "`file` to wait for; none: begin at once")
	rate := flag.Int("mbps", 100, "MB a second")
	most := flag.Int("most", 1<<20, "stop at so many `MB`")
	flag.Parse()
	fmt.Println("ready")
	for *begin != "" {
		if _, err := os.Stat(*begin); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	step := 4 * 16 * smallSize // bytes of one round
	for start, n := time.Now(), 0; ; n += step {
		if n < *most<<20 {
			kept = append(kept, large())
			for i := 0; i < 16; i++ {
				kept = append(kept, small())
			}
		}
		if ahead := time.Duration(n)*time.Second/time.Duration(*rate<<20) - time.Since(start); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		if len(os.Args) > 100 { // never: so that the runtime profiles memory
			_ = pprof.Lookup("heap").WriteTo(os.Stdout, 0)
		}
	}
}

//go:noinline
func large() []byte { return filled(largeSize) }

//go:noinline
func small() []byte { return filled(smallSize) }

// filled uses all of its memory.
func filled(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
