package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/kerneltest/job"
)

// result is what is known of one machine's run.
type result struct {
	Arch     string
	Kernel   kernel
	Release  string // as the kernel itself says
	Commit   string // that was tested
	Jobs     []jobResult
	Measured []measure
	Lacks    []lack
	Took     time.Duration
	Down     string // why the machine did not end as it should; "" if it did
	Note     string
}

type jobResult struct {
	Name    string
	Tests   tally
	Failure string // "" is success
	Took    time.Duration
}

// measure is what a test said by t.Attr.
type measure struct{ Test, Key, Value string }

// lack is a finding of pprofd doctor that is not good.
type lack struct{ Status, Name, Value string }

// report follows a machine's console: it passes tests' output on and keeps count.
type report struct {
	out     io.Writer
	now     func() time.Time
	start   time.Time // of the machine, then of the job
	want    int       // jobs
	done    bool
	current string          // job that runs
	tests   tally           // of that job, by their result
	command strings.Builder // what doctor printed
	oops    string          // the kernel's first word on its death
	boot    []string        // the console's last lines before init's first: why a machine did not get there
	*result
}

const bootLines = 40

type tally struct {
	Passed, Failed, Skipped int
	Which                   []string // failed
}

func newReport(out io.Writer, want int, r *result) *report {
	return &report{out: out, want: want, now: time.Now, start: time.Now(), result: r}
}

func (r *report) line(line string) {
	event, text := job.Parse(line)
	switch event {
	case job.Output:
		r.output(text)
	case job.Booted:
		r.Release = text
		fmt.Fprintf(r.out, "== Linux %s is up after %v\n", text, r.elapsed())
	case job.Started:
		r.current, r.tests, r.start = text, tally{}, r.now()
		r.command.Reset()
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
	if r.Release == "" {
		r.boot = append(r.boot[max(0, len(r.boot)-bootLines+1):], text)
		return
	}
	if r.current == doctorName {
		fmt.Fprintln(&r.command, text)
		return
	}
	fmt.Fprintln(r.out, text)
	if _, oops, found := strings.Cut(text, "] Oops: "); found && r.oops == "" {
		r.oops = oops
	}
	word, rest, _ := strings.Cut(strings.TrimLeft(text, " "), ":")
	switch word {
	case "--- PASS":
		r.tests.Passed++
	case "--- FAIL":
		r.tests.Failed++
		name, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		r.tests.Which = append(r.tests.Which, name)
	case "--- SKIP":
		r.tests.Skipped++
	}
	r.attr(text)
}

// attrPrefix begins a line of t.Attr; cmd/internal/test2json knows the form.
const attrPrefix = "=== ATTR  "

func (r *report) attr(text string) {
	line, found := strings.CutPrefix(text, attrPrefix)
	words := strings.SplitN(line, " ", 3)
	if !found || len(words) < 3 {
		return
	}
	if key, ours := strings.CutPrefix(words[1], "pprofd."); ours {
		r.Measured = append(r.Measured, measure{words[0], key, words[2]})
	}
}

// end judges a job. One without a test that passed proves nothing.
func (r *report) end(failure string) {
	switch {
	case r.current == doctorName:
		failure = r.doctor()
	case failure == "" && r.tests.Passed == 0:
		failure = "no test passed"
	}
	j := jobResult{r.current, r.tests, failure, r.elapsed()}
	r.Jobs = append(r.Jobs, j)
	verdict := "ok  "
	if failure != "" {
		verdict, failure = "FAIL", ": "+failure
	}
	fmt.Fprintf(r.out, "%s\t%s on Linux %s\t%v (%d passed, %d failed, %d skipped)%s\n",
		verdict, j.Name, r.Release, j.Took, j.Tests.Passed, j.Tests.Failed, j.Tests.Skipped, failure)
	r.current = ""
}

// doctor reads what pprofd doctor printed. It must find that the kernel will do, or, on one that is too old, that it will not.
func (r *report) doctor() (failure string) {
	var d struct {
		CPUProfiles bool `json:"cpu_profiles"`
		Checks      []lack
	}
	if err := json.Unmarshal([]byte(r.command.String()), &d); err != nil {
		return fmt.Sprintf("pprofd doctor printed %q: %v", r.command.String(), err)
	}
	for _, c := range d.Checks {
		if c.Status != "ok" && c.Status != "info" {
			r.Lacks = append(r.Lacks, c)
		}
	}
	for _, l := range r.Lacks {
		fmt.Fprintf(r.out, "%s: %s: %s\n", l.Status, l.Name, l.Value)
	}
	if d.CPUProfiles != r.Kernel.supported() {
		return fmt.Sprintf("pprofd doctor says that CPU profiles are possible: %t", d.CPUProfiles)
	}
	r.tests.Passed++
	return ""
}

func (r *report) elapsed() time.Duration { return r.now().Sub(r.start).Round(100 * time.Millisecond) }

// emulatorFault reports whether the machine died of a bug of the emulator: up to qemu 8.0, a CPU that translates an instruction
// while another patches it may keep the breakpoint (INT3) that stands there meanwhile, which the kernel knows nothing of any more.
func (r *report) emulatorFault() bool { return strings.HasPrefix(r.oops, "int3: ") }

// finish tells what is wrong with the machine's run as a whole.
func (r *report) finish() error {
	var errs []error
	for _, j := range r.Jobs {
		if j.Failure != "" {
			errs = append(errs, fmt.Errorf("%s: %s", j.Name, j.Failure))
		}
	}
	switch {
	case r.current != "":
		r.Down = fmt.Sprintf("the machine went down during %s: %s", r.current, cmp.Or(r.oops, "it said nothing"))
	case !r.done && r.Release == "":
		r.Down = fmt.Sprintf("the machine did not reach its init:\n%s", strings.Join(r.boot, "\n"))
	case !r.done || len(r.Jobs) != r.want:
		r.Down = fmt.Sprintf("the machine went down after %d of %d jobs", len(r.Jobs), r.want)
	}
	if r.Down != "" {
		errs = append(errs, errors.New(r.Down))
	}
	return errors.Join(errs...)
}
