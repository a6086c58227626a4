package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table says for each kernel what passed, what was measured and what the kernel lacks.
func table(ctx context.Context, results []*result, offered map[string][]kernel) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Tests on other kernels, in virtual machines emulated by qemu (make test-kernels)\n")
	fmt.Fprintf(&b, "%s, %s\n\n", time.Now().UTC().Format(time.DateOnly), said(ctx, "qemu-system-x86_64", "--version"))
	overview(&b, results)
	b.WriteString("\nok n: n tests and subtests passed; -m: m were skipped; a dot: not run on this kernel.\n")
	measures(&b, results)
	lacks(&b, results)
	failures(&b, results)
	notes(&b, results)
	notRun(&b, results, offered)
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
		for _, j := range r.Jobs {
			if !slices.Contains(names, j.Name) {
				names = append(names, j.Name)
			}
		}
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "arch\tkernel\tpprofd at")
	for _, name := range names {
		fmt.Fprintf(w, "\t%s", path.Base(name))
	}
	fmt.Fprint(w, "\ttime\n")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%s", r.Arch, r.title(), r.Commit)
		for _, name := range names {
			fmt.Fprintf(w, "\t%s", r.cell(name))
		}
		fmt.Fprintf(w, "\t%v\n", r.Took)
	}
	w.Flush() // a strings.Builder does not fail
}

// title is the kernel's own name for itself, if it got so far.
func (r *result) title() string {
	if r.Release != "" {
		return r.Release
	}
	return r.Kernel.Name
}

func (r *result) cell(name string) string {
	i := slices.IndexFunc(r.Jobs, func(j jobResult) bool { return j.Name == name })
	if i < 0 {
		return "."
	}
	j := r.Jobs[i]
	cell := fmt.Sprintf("ok %d", j.Tests.Passed)
	if j.Failure != "" {
		cell = fmt.Sprintf("FAIL %d of %d", j.Tests.Failed, j.Tests.Failed+j.Tests.Passed)
	}
	if j.Tests.Skipped > 0 {
		cell += fmt.Sprintf(" -%d", j.Tests.Skipped)
	}
	return cell
}

func measures(b *strings.Builder, results []*result) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\nMeasured:\n")
	for _, r := range results {
		for _, m := range r.Measured {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Arch, r.title(), m.Test, m.Key, m.Value)
		}
	}
	w.Flush()
}

// lacks is the honest word on what is unsupported: pprofd doctor's, in the machine.
func lacks(b *strings.Builder, results []*result) {
	b.WriteString("\nWhat pprofd doctor finds missing there (fail: no CPU profiles; warn: less of them):\n")
	for _, r := range results {
		if len(r.Lacks) == 0 {
			fmt.Fprintf(b, "%s %s: nothing\n", r.Arch, r.title())
		}
		for _, l := range r.Lacks {
			fmt.Fprintf(b, "%s %s: %s: %s: %s\n", r.Arch, r.title(), l.Status, l.Name, l.Value)
		}
	}
}

func failures(b *strings.Builder, results []*result) {
	b.WriteString("\nFailed:\n")
	none := true
	for _, r := range results {
		for _, j := range r.Jobs {
			if j.Failure != "" {
				none = false
				fmt.Fprintf(b, "%s %s: %s: %s %s\n", r.Arch, r.title(), j.Name, j.Failure, strings.Join(j.Tests.Which, " "))
			}
		}
		if r.Down != "" {
			none = false
			fmt.Fprintf(b, "%s %s: %s\n", r.Arch, r.title(), r.Down)
		}
	}
	if none {
		b.WriteString("nothing\n")
	}
}

func notes(b *strings.Builder, results []*result) {
	for _, r := range results {
		if r.Note != "" {
			fmt.Fprintf(b, "\n%s %s: %s\n", r.Arch, r.title(), r.Note)
		}
	}
}

// notRun names the kernels that could have been run, too.
func notRun(b *strings.Builder, results []*result, offered map[string][]kernel) {
	var names []string
	for _, arch := range slices.Sorted(maps.Keys(offered)) {
		for _, k := range offered[arch] {
			if !slices.ContainsFunc(results, func(r *result) bool { return r.Arch == arch && r.Kernel.Name == k.Name }) {
				names = append(names, arch+" "+k.Name)
			}
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(b, "\nOffered by Debian's archive, but not run (-kernels NAME runs them):\n%s\n", strings.Join(names, ", "))
	}
}
