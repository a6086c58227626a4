package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// turns is a program whose functions strictly take turns in allocating objects of one size: who is met where spans of memory
// are used up may always be the same one.
type turns struct {
	toolchain string // GOTOOLCHAIN
	mode      string // of internal/testprog/targets/alloc: alternate, two functions; three
	gc        string // GOGC
}

// naive is a stack wherever a span is used up, counted by bpftrace.
const naive = "refill"

// turnsMB is how much is allocated under each profiler: 1,200 samples.
const turnsMB = 600

func allTurns() (all []turns) {
	for _, toolchain := range []string{"go1.22.12", "local"} {
		for _, mode := range []string{"alternate", "three"} {
			for _, gc := range []string{"100", "-1"} {
				all = append(all, turns{toolchain, mode, gc})
			}
		}
	}
	return all
}

func (u turns) name(profiler string) string {
	return fmt.Sprintf("Turns/go=%s/mode=%s/GOGC=%s/profiler=%s", u.toolchain, u.mode, u.gc, profiler)
}

// measureTurns tells how pprofd and a naive profiler share out what functions allocate that take turns.
func (b *bench) measureTurns(ctx context.Context) error {
	for _, u := range allTurns() {
		program, err := b.buildAlloc(ctx, u.toolchain)
		if err != nil {
			return err
		}
		for _, w := range []watcher{
			{name: always, lead: lead, command: record("--alloc-source", "probe", "--alloc-budget", "0")},
			{name: naive, lead: 2 * bpftraceLead, command: refills(program)},
		} {
			shares, err := b.shares(ctx, &u, program, &w)
			if err != nil {
				return fmt.Errorf("%s: %w", u.name(w.name), err)
			}
			values := make([]board.Value, len(shares))
			for i, v := range shares {
				values[i] = board.Value{V: v, Unit: "%site" + string(rune('A'+i))}
			}
			b.report.Add(u.name(w.name), 1, values...)
		}
	}
	return nil
}

// buildAlloc makes internal/testprog/targets/alloc with a toolchain.
func (b *bench) buildAlloc(ctx context.Context, toolchain string) (string, error) {
	root, err := board.Command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	out := b.path("alloc-" + toolchain)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "./alloc")
	cmd.Dir = filepath.Join(strings.TrimSpace(root), "internal", "testprog", "targets")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod", "GOTOOLCHAIN="+toolchain)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s with GOTOOLCHAIN=%s: %w\n%s", cmd, toolchain, err, msg)
	}
	return out, nil
}

func refills(program string) func(*bench, *target) []string {
	return func(_ *bench, t *target) []string {
		return []string{"bpftrace", "-p", fmt.Sprint(t.pid()), "-e", fmt.Sprintf(`uprobe:%s:"runtime.(*mcache).refill" { @[ustack(8)] = count(); }`, program)}
	}
}

// shares profiles a program while it allocates, and returns what each of its functions has of the whole, in percent.
func (b *bench) shares(ctx context.Context, u *turns, program string, w *watcher) (percent []float64, err error) {
	t := &target{cmd: exec.Command(program, "-mode", u.mode, "-gc", u.gc, "-mb", strconv.Itoa(turnsMB), "-life", "1m")}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = t.cmd.Process.Kill()
		_ = t.cmd.Wait() // it was killed
	}()
	t.out = bufio.NewScanner(out)
	if !t.await("ready") {
		return nil, fmt.Errorf("%s did not get ready", t.cmd)
	}
	output, err := b.while(ctx, t, w, func() error {
		if err := t.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			return err
		}
		if !t.await("done") {
			return fmt.Errorf("%s ended early", t.cmd)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	bytes := stacksOf(output)
	if w.name == always {
		if bytes, err = b.bytesBySite(); err != nil {
			return nil, err
		}
	}
	return sharesOf(bytes, map[string]int{"alternate": 2, "three": 3}[u.mode])
}

// await reads lines up to one that begins with word.
func (t *target) await(word string) bool {
	for t.out.Scan() {
		if strings.HasPrefix(t.out.Text(), word) {
			return true
		}
	}
	return false
}

// while does something while a profiler runs, and returns what that has printed.
func (b *bench) while(ctx context.Context, t *target, w *watcher, do func() error) (string, error) {
	args := w.command(b, t)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return "", err
	}
	time.Sleep(w.lead)
	err := errors.Join(do(), cmd.Process.Signal(syscall.SIGINT))
	if errWait := cmd.Wait(); errWait != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w\n%s", cmd, errWait, output.Bytes()))
	}
	return output.String(), err
}

// bytesBySite adds up the profile by the functions that take turns.
func (b *bench) bytesBySite() (map[string]float64, error) {
	f, err := os.Open(b.profile())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, err
	}
	bytes := make(map[string]float64)
	for _, s := range p.Sample {
		if len(s.Location) > 0 && len(s.Location[0].Line) > 0 {
			bytes[s.Location[0].Line[0].Function.Name] += float64(s.Value[1])
		}
	}
	return bytes, nil
}

var (
	siteOfStack  = regexp.MustCompile(`main\.site[A-C]`)
	countOfStack = regexp.MustCompile(`^\]: (\d+)$`)
)

// stacksOf counts the stacks that bpftrace has printed by the functions that take turns.
func stacksOf(output string) map[string]float64 {
	counts := make(map[string]float64)
	site := ""
	for line := range strings.Lines(output) {
		if name := siteOfStack.FindString(line); name != "" {
			site = name
		}
		if m := countOfStack.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			n, err := strconv.Atoi(m[1])
			if err == nil && site != "" {
				counts[site] += float64(n)
			}
			site = ""
		}
	}
	return counts
}

// sharesOf are the percentages of the n functions.
func sharesOf(bytes map[string]float64, n int) ([]float64, error) {
	shares, sum := make([]float64, n), 0.0
	for i := range shares {
		shares[i] = bytes["main.site"+string(rune('A'+i))]
		sum += shares[i]
	}
	if sum == 0 {
		return nil, fmt.Errorf("nothing was seen of functions that take turns: %w", io.ErrUnexpectedEOF)
	}
	for i := range shares {
		shares[i] *= 100 / sum
	}
	return shares, nil
}

// turnsTable tells the same for people.
func (b *bench) turnsTable() {
	if b.given(allTurns()[0].name(always)) == "" {
		return
	}
	b.report.Printf("\n# functions that strictly take turns in allocating objects of one size, who are to have the same: what each was given, %%\n"+
		"# %-12s %-10s %5s %24s %24s\n", "go", "functions", "GOGC", "pprofd", "a stack at each refill")
	for _, u := range allTurns() {
		b.report.Printf("# %-12s %-10s %5s %24s %24s\n", u.toolchain, u.mode, u.gc, b.given(u.name(always)), b.given(u.name(naive)))
	}
}

func (b *bench) given(name string) string {
	var words []string
	for _, unit := range []string{"%siteA", "%siteB", "%siteC"} {
		if v, ok := b.report.Median(name, unit); ok {
			words = append(words, fmt.Sprintf("%.0f", v))
		}
	}
	return strings.Join(words, " / ")
}
