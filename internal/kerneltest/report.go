package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/kerneltest/job"
)

// report follows a machine's console: it passes tests' output on and keeps count.
type report struct {
	out     io.Writer
	now     func() time.Time
	start   time.Time // of the machine, then of the job
	want    int       // jobs
	ended   int
	failed  []string
	done    bool
	current string // job that runs
	tests   tally  // of that job, by their result
	kernel  string
	boot    []string // the console's last lines before init's first: why a machine did not get there
}

const bootLines = 40

type tally struct{ passed, failed, skipped int }

func newReport(out io.Writer, want int) *report {
	return &report{out: out, want: want, now: time.Now, start: time.Now()}
}

func (r *report) line(line string) {
	event, text := job.Parse(line)
	switch event {
	case job.Output:
		r.output(text)
	case job.Booted:
		r.kernel = text
		fmt.Fprintf(r.out, "== Linux %s is up after %v\n", text, r.elapsed())
	case job.Started:
		r.current, r.tests, r.start = text, tally{}, r.now()
	case job.Ended:
		r.end(text)
	case job.Done:
		r.done = true
	}
}

// output counts results of subtests, too.
func (r *report) output(text string) {
	if strings.TrimSpace(text) == "" || r.done {
		return
	}
	if r.kernel == "" {
		r.boot = append(r.boot[max(0, len(r.boot)-bootLines+1):], text)
		return
	}
	fmt.Fprintln(r.out, text)
	word, _, _ := strings.Cut(strings.TrimLeft(text, " "), ":")
	switch word {
	case "--- PASS":
		r.tests.passed++
	case "--- FAIL":
		r.tests.failed++
	case "--- SKIP":
		r.tests.skipped++
	}
}

// end judges a job. One without a test that passed proves nothing.
func (r *report) end(failure string) {
	r.ended++
	if failure == "" && r.tests.passed == 0 {
		failure = "no test passed"
	}
	verdict := "ok  "
	if failure != "" {
		verdict, failure = "FAIL", ": "+failure
		r.failed = append(r.failed, r.current+failure)
	}
	fmt.Fprintf(r.out, "%s\t%s on Linux %s\t%v (%d passed, %d failed, %d skipped)%s\n",
		verdict, r.current, r.kernel, r.elapsed(), r.tests.passed, r.tests.failed, r.tests.skipped, failure)
	r.current = ""
}

func (r *report) elapsed() time.Duration { return r.now().Sub(r.start).Round(100 * time.Millisecond) }

// finish tells what is wrong with the machine's run as a whole.
func (r *report) finish() error {
	var errs []error
	for _, f := range r.failed {
		errs = append(errs, errors.New(f))
	}
	switch {
	case r.current != "":
		errs = append(errs, fmt.Errorf("the machine went down during %s", r.current))
	case !r.done && r.kernel == "":
		errs = append(errs, fmt.Errorf("the machine did not reach its init:\n%s", strings.Join(r.boot, "\n")))
	case !r.done || r.ended != r.want:
		errs = append(errs, fmt.Errorf("the machine went down after %d of %d jobs", r.ended, r.want))
	}
	return errors.Join(errs...)
}
