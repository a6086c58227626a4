package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
	"github.com/pprofd/pprofd/internal/testprog"
)

func main() { os.Exit(board.Run("goroutines", mainErr)) }

func mainErr(ctx context.Context) error {
	c := config{counts: []int{1_000, 10_000, 1_000_000}}
	flag.IntVar(&c.rounds, "rounds", 7, "`rounds`; of a million goroutines a seventh of them")
	flag.Func("n", "comma-separated numbers of `goroutines` (default 1000,10000,1000000)", board.Numbers(&c.counts, "number of goroutines"))
	flag.StringVar(&c.pprofd, "pprofd", "", "measure the `program`, do not build pprofd")
	out := flag.String("o", "", "also write the report to `file`")
	flag.Parse()
	return board.Output(*out, func(w io.Writer) error { return run(ctx, w, &c) })
}

type config struct {
	counts []int
	rounds int
	pprofd string
}

// dlvMost is for how many goroutines a debugger is waited for.
const dlvMost = 10_000

// bench is what all measurements need.
type bench struct {
	*config
	dir    string
	report *board.Report
}

func run(ctx context.Context, out io.Writer, c *config) error {
	dir, err := os.MkdirTemp("", "pprofd-goroutines-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{config: c, dir: dir, report: board.New(out)}
	if b.pprofd == "" {
		b.pprofd = filepath.Join(dir, "pprofd")
		if err := agents.BuildPprofd(ctx, b.pprofd); err != nil {
			return err
		}
	}
	crowd, err := testprog.BuildFile("crowd", testprog.Options{})
	if err != nil {
		return err
	}
	b.report.Facts(board.Facts(ctx))
	for _, n := range c.counts {
		if err := b.measure(ctx, crowd, n); err != nil {
			return fmt.Errorf("%d goroutines: %w", n, err)
		}
	}
	b.tables()
	return b.report.Err()
}

// measure asks a process of n goroutines in all ways, in turns.
func (b *bench) measure(ctx context.Context, crowd string, n int) error {
	p, err := testprog.Launch(testprog.StartOptions{}, crowd, strconv.Itoa(n))
	if err != nil {
		return err
	}
	defer p.Stop()
	line, err := p.Await("addr ", time.Minute)
	if err != nil {
		return err
	}
	t := &target{url: "http://" + strings.TrimPrefix(line, "addr "), pid: p.PID, n: n}
	rounds := b.rounds
	if n > 100_000 {
		rounds = max(1, rounds/7)
	}
	for range rounds {
		for _, way := range b.ways(n) {
			if err := b.one(ctx, t, &way); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
	}
	return nil
}

// target is a process with n goroutines.
type target struct {
	url    string
	pid, n int
}

// way is one of seeing all goroutines.
type way struct {
	name string
	args func(t *target) []string // a program's; nil: path is asked for over HTTP, "" for nobody
	path string
}

func (b *bench) ways(n int) []way {
	list := []way{
		{name: "nobody"},
		{name: "pprofd-text", args: func(t *target) []string {
			return []string{b.pprofd, "dump", "--running", "0", "-p", strconv.Itoa(t.pid)}
		}},
		{name: "pprofd-profile", args: func(t *target) []string {
			return []string{b.pprofd, "dump", "--running", "0", "-p", strconv.Itoa(t.pid), "-o", filepath.Join(b.dir, "g.pb.gz")}
		}},
		{name: "own-debug=0", path: "/debug/pprof/goroutine?debug=0"},
		{name: "own-debug=2", path: "/debug/pprof/goroutine?debug=2"},
	}
	dlv, err := exec.LookPath("dlv")
	script := filepath.Join(b.dir, "script")
	if err != nil || n > dlvMost || os.WriteFile(script, []byte("goroutines -t\nexit\n"), 0o600) != nil {
		return list
	}
	return append(list, way{name: "dlv", args: func(t *target) []string {
		return []string{dlv, "attach", strconv.Itoa(t.pid), "--init", script, "--allow-non-terminal-interactive"}
	}})
}

const idle = 500 * time.Millisecond

// one asks once.
func (b *bench) one(ctx context.Context, t *target, w *way) error {
	time.Sleep(idle / 2)
	if _, err := t.longest(ctx); err != nil {
		return err
	}
	began := time.Now()
	var values []board.Value
	var err error
	switch {
	case w.args != nil:
		values, err = command(ctx, w.args(t))
	case w.path != "":
		err = fetch(ctx, t.url+w.path, io.Discard)
	default:
		time.Sleep(idle)
	}
	took := time.Since(began)
	if err != nil {
		return err
	}
	longest, err := t.longest(ctx)
	if err != nil {
		return err
	}
	values = append([]board.Value{{V: took.Seconds() * 1e3, Unit: "ms"}, {V: longest.Seconds() * 1e3, Unit: "ms-held-up"}}, values...)
	b.report.Add(fmt.Sprintf("Goroutines/n=%d/by=%s", t.n, w.name), 1, values...)
	return nil
}

// longest is for how long the process was kept from looking at the clock since it was asked last.
func (t *target) longest(ctx context.Context) (time.Duration, error) {
	var text strings.Builder
	if err := fetch(ctx, t.url+"/longest", &text); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text.String()), 10, 64)
	return time.Duration(n), err
}

func fetch(ctx context.Context, url string, to io.Writer) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(to, resp.Body)
	return err
}

// command runs a program and says what it used.
func command(ctx context.Context, args []string) ([]board.Value, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out, errOut head
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Stdin = strings.NewReader("n\n") // to a debugger that asks whether to kill what it was attached to
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cmd, err, errOut)
	}
	state := cmd.ProcessState
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return nil, errors.New("no resource usage")
	}
	cpu := state.UserTime() + state.SystemTime()
	values := []board.Value{{V: cpu.Seconds() * 1e3, Unit: "cpu-ms"}, {V: float64(usage.Maxrss) / 1024, Unit: "MiB"}}
	if m := readIn.FindSubmatch(out); m != nil {
		read, err := time.ParseDuration(string(m[1]))
		if err != nil {
			return nil, err
		}
		values = append(values, board.Value{V: read.Seconds() * 1e3, Unit: "read-ms"})
	}
	return values, nil
}

// readIn is what the dump says of itself: how long it took from the first goroutine to the last, with their names.
var readIn = regexp.MustCompile(`^process \d+ .*, read in (\S+)\n`)

// head keeps the beginning of what is written to it.
type head []byte

const headBytes = 4096

func (h *head) Write(b []byte) (int, error) {
	*h = append(*h, b[:min(len(b), headBytes-len(*h))]...)
	return len(b), nil
}

// tables are medians, and the goals of the command.
func (b *bench) tables() {
	for _, n := range b.counts {
		b.report.Table(fmt.Sprintf("Goroutines/n=%d/by=", n), "ms", "ms-held-up", "read-ms", "cpu-ms", "MiB")
	}
	b.report.Printf("\n# %-44s %10s %10s\n", "goal", "is", "may be")
	for _, g := range []struct {
		n          int
		unit, text string
		limit      float64
	}{
		{10_000, "read-ms", "10,000 goroutines, ms to read", 50}, {1_000_000, "ms", "1,000,000 goroutines, ms", 10_000},
		{1_000_000, "MiB", "1,000,000 goroutines, MiB", 500},
	} {
		if v, ok := b.report.Median(fmt.Sprintf("Goroutines/n=%d/by=pprofd-text", g.n), g.unit); ok {
			b.report.Goal(g.text, v, g.limit)
		}
	}
}
