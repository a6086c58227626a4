// Command service is a small HTTP service with its own clients, over loopback: it decodes and encodes JSON, searches,
// renders, compresses, hashes and walks trees. It counts the requests that it has answered, so that whoever watches it
// can tell what being watched costs it. Lines on its standard input are commands, each of which it answers by one line:
//
//	count               answers "count REQUESTS NANOSECONDS CPU", both since its start
//	profile HZ FILE     begins a CPU profile of its own, by runtime/pprof, into FILE; "ok"
//	stop                ends that profile; "ok"
//
// It ends with its input.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // as services have it: without, their runtime would keep no heap profile
	"os"
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"targets/internal/cpuclock"
)

var answered uint64

func main() {
	procs := flag.Int("procs", 2, "GOMAXPROCS")
	clients := flag.Int("clients", 4, "clients that ask all the time")
	pause := flag.Duration("pause", 0, "between the requests of a client: 0 is busy, a second is next to idle")
	flag.Parse()
	runtime.GOMAXPROCS(*procs)
	if err := run(*clients, *pause); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

func run(clients int, pause time.Duration) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, clients+2)
	go func() { failed <- http.Serve(l, routes()) }()
	for i := 0; i < clients; i++ {
		go func(i int) { failed <- client("http://"+l.Addr().String(), i, pause) }(i)
	}
	fmt.Println("ready", os.Getpid())
	go func() { failed <- commands(os.Stdin, os.Stdout) }()
	return <-failed
}

// client asks for all paths in turn, each in a different order.
func client(base string, seed int, pause time.Duration) error {
	transport := &http.Transport{}
	c := http.Client{Transport: transport}
	for i := seed; ; i += 1 + seed%2 {
		resp, err := c.Get(base + paths[i%len(paths)].path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", resp.Request.URL, resp.Status)
		}
		atomic.AddUint64(&answered, 1)
		if pause > 0 {
			time.Sleep(pause)
		}
	}
}

// commands answers until the input ends.
func commands(in io.Reader, out io.Writer) error {
	began := time.Now()
	var file *os.File
	for sc := bufio.NewScanner(in); sc.Scan(); {
		var hz int
		var path string
		switch n, _ := fmt.Sscanf(sc.Text(), "profile %d %s", &hz, &path); {
		case sc.Text() == "count":
			fmt.Fprintln(out, "count", atomic.LoadUint64(&answered), time.Since(began).Nanoseconds(), cpuclock.Process().Nanoseconds())
			continue
		case n == 2:
			var err error
			if file, err = os.Create(path); err != nil {
				return err
			}
			if hz != 100 { // runtime/pprof then says that it cannot set the rate, and takes this one
				runtime.SetCPUProfileRate(hz)
			}
			if err := pprof.StartCPUProfile(file); err != nil {
				return err
			}
		case sc.Text() == "stop" && file != nil:
			pprof.StopCPUProfile()
			if err := file.Close(); err != nil {
				return err
			}
			file = nil
		default:
			return fmt.Errorf("unknown command %q", sc.Text())
		}
		fmt.Fprintln(out, "ok")
	}
	return nil
}
