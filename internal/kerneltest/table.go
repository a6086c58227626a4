package main

import (
	"context"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table says for each kernel what passed, what was measured and what the kernel lacks.
func table(ctx context.Context, results []*result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Tests on other kernels, in virtual machines emulated by qemu (make test-kernels)\n")
	fmt.Fprintf(&b, "%s, pprofd at commit %s, %s\n\n", time.Now().UTC().Format(time.DateOnly), said(ctx, "git", "describe", "--always", "--dirty"),
		said(ctx, "qemu-system-x86_64", "--version"))
	overview(&b, results)
	b.WriteString("\nok n: n tests and subtests passed; -m: m were skipped; a dot: not run on this kernel.\n")
	measures(&b, results)
	lacks(&b, results)
	failures(&b, results)
	return b.String()
}

// said is the first line that a command prints; a fact that cannot be had is unknown.
func said(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil || line == "" {
		return name + " unknown"
	}
	return line
}

// overview has a row for each machine and a column for each job.
func overview(b *strings.Builder, results []*result) {
	var names []string
	for _, r := range results {
		for _, j := range r.jobs {
			if !slices.Contains(names, j.name) {
				names = append(names, j.name)
			}
		}
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "arch\tkernel")
	for _, name := range names {
		fmt.Fprintf(w, "\t%s", path.Base(name))
	}
	fmt.Fprint(w, "\ttime\n")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s", r.arch, r.title())
		for _, name := range names {
			fmt.Fprintf(w, "\t%s", r.cell(name))
		}
		fmt.Fprintf(w, "\t%v\n", r.took)
	}
	w.Flush() // a strings.Builder does not fail
}

// title is the kernel's own name for itself, if it got so far.
func (r *result) title() string {
	if r.release != "" {
		return r.release
	}
	return r.kernel.Name
}

func (r *result) cell(name string) string {
	i := slices.IndexFunc(r.jobs, func(j jobResult) bool { return j.name == name })
	if i < 0 {
		return "."
	}
	j := r.jobs[i]
	cell := fmt.Sprintf("ok %d", j.tests.passed)
	if j.failure != "" {
		cell = fmt.Sprintf("FAIL %d of %d", j.tests.failed, j.tests.failed+j.tests.passed)
	}
	if j.tests.skipped > 0 {
		cell += fmt.Sprintf(" -%d", j.tests.skipped)
	}
	return cell
}

func measures(b *strings.Builder, results []*result) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\nMeasured:\n")
	for _, r := range results {
		for _, m := range r.measured {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.arch, r.title(), m.test, m.key, m.value)
		}
	}
	w.Flush()
}

// lacks is the honest word on what is unsupported: pprofd doctor's, in the machine.
func lacks(b *strings.Builder, results []*result) {
	b.WriteString("\nWhat pprofd doctor finds missing there (fail: no CPU profiles; warn: less of them):\n")
	for _, r := range results {
		if len(r.lacks) == 0 {
			fmt.Fprintf(b, "%s %s: nothing\n", r.arch, r.title())
		}
		for _, l := range r.lacks {
			fmt.Fprintf(b, "%s %s: %s: %s: %s\n", r.arch, r.title(), l.Status, l.Name, l.Value)
		}
	}
}

func failures(b *strings.Builder, results []*result) {
	b.WriteString("\nFailed:\n")
	none := true
	for _, r := range results {
		for _, j := range r.jobs {
			if j.failure != "" {
				none = false
				fmt.Fprintf(b, "%s %s: %s: %s %s\n", r.arch, r.title(), j.name, j.failure, strings.Join(j.tests.which, " "))
			}
		}
		if r.err != nil && len(r.jobs) == 0 {
			none = false
			fmt.Fprintf(b, "%s %s: %v\n", r.arch, r.title(), r.err)
		}
	}
	if none {
		b.WriteString("nothing\n")
	}
}
