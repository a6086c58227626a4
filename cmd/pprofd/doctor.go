package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/bpf"
	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/discover"
	"github.com/pprofd/pprofd/profiler"
)

// status is the outcome of one check.
type status string

const (
	statusOK   status = "ok"
	statusInfo status = "info" // neither good nor bad, but explains what one sees
	statusWarn status = "warn" // something beside the main job does not work
	statusFail status = "fail" // no CPU profile
)

// check is one finding of doctor.
type check struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	Value  string `json:"value"`         // what was found
	Means  string `json:"means"`         // what that is good for, or what is lost
	Fix    string `json:"fix,omitempty"` // what to type or change, alternatives separated by "; or "; only with warn and fail
}

// diagnosis is the output of doctor --json.
type diagnosis struct {
	CPUProfiles bool    `json:"cpu_profiles"` // possible here and now, for this user
	Version     string  `json:"version"`
	Checks      []check `json:"checks"`
}

func newDoctor() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this kernel, these capabilities and this host allow, and how to fix the rest",
		Long: `Doctor checks everything that pprofd asks of the machine, as the user that runs it: run it as you run record.
Each lack comes with its fix. The exit status is 1 where CPU profiles are impossible, else 0.`,
		Example: `  sudo pprofd doctor
  sudo pprofd doctor --json | jq '.checks[] | select(.status == "fail")'`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return doctor(c.Context(), c.OutOrStdout(), asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func doctor(ctx context.Context, stdout io.Writer, asJSON bool) error {
	h, err := thisHost()
	if err != nil {
		return err
	}
	d := diagnose(ctx, h)
	if asJSON {
		err = printJSON(stdout, d)
	} else {
		err = printDiagnosis(stdout, d)
	}
	if err == nil && !d.CPUProfiles {
		return exitError{code: exitFailure}
	}
	return err
}

// diagnose is the host's own checks, then what the kernel says of BPF, then the real program: the last word.
func diagnose(ctx context.Context, h *host) diagnosis {
	checks := h.checks()
	if ctx.Err() == nil {
		checks = append(checks, featureChecks(bpf.Features())...)
		checks = append(checks, loadCheck(h))
	}
	d := diagnosis{CPUProfiles: true, Version: version(), Checks: checks}
	for _, c := range checks {
		if c.Status == statusFail {
			d.CPUProfiles = false
		}
	}
	return d
}

// loadCheck loads and attaches what record would.
func loadCheck(h *host) check {
	c := check{Name: "pprofd's BPF programs", Means: "the programs that take CPU samples"}
	p, err := profiler.New(profiler.Config{Exporter: nowhere{}, ProcRoot: h.proc, Version: version()})
	if err != nil {
		return c.fail(err.Error(), fixOf(err, h))
	}
	if err := p.Close(); err != nil {
		return c.warn(err.Error(), "")
	}
	return c.ok("loaded")
}

func featureChecks(all []bpf.Feature) []check {
	var checks []check
	for _, f := range all {
		c := check{Name: f.Name, Means: fmt.Sprintf("to %s (since Linux %s)", f.Use, f.Since)}
		switch {
		case f.OK:
			c = c.ok("available")
		case errors.Is(f.Err, os.ErrPermission):
			c = c.info("not known: no right to ask") // CAP_BPF and CAP_PERFMON are checks of their own
		case f.Required:
			c = c.fail(firstLine(f.Err), f.Fix)
		default:
			c = c.warn(firstLine(f.Err), f.Fix)
		}
		checks = append(checks, c)
	}
	return checks
}

func (c check) with(s status, value, fix string) check {
	c.Status, c.Value, c.Fix = s, value, fix
	return c
}

func (c check) ok(value string) check        { return c.with(statusOK, value, "") }
func (c check) info(value string) check      { return c.with(statusInfo, value, "") }
func (c check) warn(value, fix string) check { return c.with(statusWarn, value, fix) }
func (c check) fail(value, fix string) check { return c.with(statusFail, value, fix) }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printDiagnosis prints a table of all checks, then what to do, then the verdict.
func printDiagnosis(w io.Writer, d diagnosis) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range d.Checks {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", strings.ToUpper(string(c.Status)), c.Name, c.Means, discover.Printable(c.Value))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	printFixes(w, d.Checks)
	verdict := "CPU profiles: possible"
	if !d.CPUProfiles {
		verdict = "CPU profiles: not possible; see what failed above"
	}
	_, err := fmt.Fprintf(w, "\n%s\n", verdict)
	return err
}

// printFixes prints every fix once, with all that it repairs.
func printFixes(w io.Writer, checks []check) {
	var fixes []string
	names := map[string][]string{}
	for _, c := range checks {
		if c.Fix == "" {
			continue
		}
		if names[c.Fix] == nil {
			fixes = append(fixes, c.Fix)
		}
		names[c.Fix] = append(names[c.Fix], c.Name)
	}
	for _, fix := range fixes {
		fmt.Fprintf(w, "\nFix for %s:\n  %s\n", strings.Join(names[fix], ", "), strings.ReplaceAll(fix, "; or ", "\n  or "))
	}
}

func firstLine(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// nowhere is where doctor's profiler exports to, which never runs.
type nowhere struct{}

func (nowhere) Export(context.Context, *export.Profile) error { return nil }
func (nowhere) Close() error                                  { return nil }
