package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/kerneltest/job"
)

func TestReport(t *testing.T) {
	const passed, failed, skipped = "--- PASS: TestA (0.00s)\n", "    --- FAIL: TestA/sub (0.00s)\n", "--- SKIP: TestB (0.00s)\n"
	boot := "SeaBIOS\n" + job.Line(job.Booted, "6.1.0") + job.Line(job.Started, "./a")
	tests := map[string]struct {
		console string
		want    string // in the error; "" is success
	}{
		"all is well":                     {boot + passed + skipped + job.Line(job.Ended, "") + job.Line(job.Done, ""), ""},
		"a test fails":                    {boot + passed + failed + job.Line(job.Ended, "exit status 1") + job.Line(job.Done, ""), "./a: exit status 1"},
		"all tests are skipped":           {boot + skipped + job.Line(job.Ended, "") + job.Line(job.Done, ""), "no test passed"},
		"no tests to run":                 {boot + job.Line(job.Ended, "") + job.Line(job.Done, ""), "no test passed"},
		"the kernel panics during a test": {boot + passed, "went down during ./a"},
		"a job was not run":               {"SeaBIOS\n" + job.Line(job.Booted, "6.1.0") + job.Line(job.Done, ""), "after 0 of 1 jobs"},
		"init dies between jobs":          {boot + passed + job.Line(job.Ended, ""), "after 1 of 1 jobs"},
		"the kernel does not boot":        {"SeaBIOS\nKernel panic - not syncing\n", "Kernel panic"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newReport(t.Output(), 1, &result{})
			if err := eachLine(strings.NewReader(strings.ReplaceAll(tt.console, "\n", "\r\n")), r.line); err != nil {
				t.Fatal(err)
			}
			err := r.finish()
			if tt.want == "" && err != nil {
				t.Errorf("finish: %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("finish: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// A machine that an int3 of the kernel's own brought down is run again, no other.
func TestTheEmulatorsFault(t *testing.T) {
	for oops, want := range map[string]bool{"int3: 0000 [#1] SMP NOPTI": true, "general protection fault: 0000 [#1]": false} {
		r := newReport(t.Output(), 1, &result{})
		for _, line := range []string{job.Line(job.Booted, "6.19.0"), job.Line(job.Started, "./a"), "[  212.255807] Oops: " + oops, "[  212.3] Oops: again"} {
			r.line(strings.TrimSuffix(line, "\n"))
		}
		if err := r.finish(); r.emulatorFault() != want || err == nil || !strings.Contains(err.Error(), oops) || !strings.Contains(r.Down, "./a") {
			t.Errorf("%s: the emulator's: %t; %v", oops, r.emulatorFault(), err)
		}
	}
}

func TestReportKeepsOnlyTheEndOfALongBoot(t *testing.T) {
	r := newReport(t.Output(), 1, &result{})
	for range 10 * bootLines {
		r.line("early")
	}
	r.line("last")
	if len(r.boot) != bootLines || r.boot[bootLines-1] != "last" {
		t.Errorf("%d lines kept, the last is %q; want %d and %q", len(r.boot), r.boot[len(r.boot)-1], bootLines, "last")
	}
}

func TestALongLineComesInPieces(t *testing.T) {
	var got strings.Builder
	long := strings.Repeat("x", 200<<10)
	if err := eachLine(strings.NewReader(long+"\nend"), func(s string) { got.WriteString(s) }); err != nil {
		t.Fatal(err)
	}
	if got.String() != long+"end" {
		t.Errorf("got %d bytes, want %d", got.Len(), len(long)+3)
	}
}

const doctorJSON = `{
  "cpu_profiles": %t,
  "checks": [
    {"name": "kernel", "status": "ok", "value": "fine"},
    {"name": "bpf_loop", "status": "warn", "value": "not supported"}
  ]
}`

// The table says what passed, what was measured, and what the kernel lacks.
func TestTable(t *testing.T) {
	r := &result{Kernel: kernel{Name: "6.1", file: "vmlinuz-6.1.0"}, Arch: "amd64"}
	p := newReport(t.Output(), 2, r)
	console := job.Line(job.Booted, "6.1.0-56") + job.Line(job.Started, doctorName) + fmt.Sprintf(doctorJSON, true) + "\n" + job.Line(job.Ended, "") +
		job.Line(job.Started, "./a") + "=== ATTR  TestA/go1.18 pprofd.share 99.5 %\n=== ATTR  TestA foreign x\n--- PASS: TestA (0.00s)\n--- SKIP: TestB (0.00s)\n" +
		job.Line(job.Ended, "") + job.Line(job.Done, "")
	if err := eachLine(strings.NewReader(console), p.line); err != nil {
		t.Fatal(err)
	}
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(table(t.Context(), []*result{r}, map[string][]kernel{"amd64": {{Name: "6.1"}, {Name: "6.1-rt"}}})), " ")
	for _, want := range []string{"amd64 6.1.0-56 ok 1 ok 1 -1", "TestA/go1.18 share 99.5 %", "amd64 6.1.0-56: warn: bpf_loop: not supported", "Failed: nothing", "them): amd64 6.1-rt"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the table:\n%s", want, got)
		}
	}
	if strings.Contains(got, "foreign") {
		t.Errorf("an attribute that is not ours is in the table:\n%s", got)
	}
}

// On an old kernel it is doctor's duty to say no.
func TestDoctorIsJudged(t *testing.T) {
	for name, tt := range map[string]struct {
		output, file string
		want         string // in the failure; "" is none
	}{
		"yes on a good kernel": {fmt.Sprintf(doctorJSON, true), "vmlinuz-6.1.0", ""},
		"no on a good kernel":  {fmt.Sprintf(doctorJSON, false), "vmlinuz-6.1.0", "possible: false"},
		"no on an old kernel":  {fmt.Sprintf(doctorJSON, false), "vmlinuz-5.10.0", ""},
		"yes on an old kernel": {fmt.Sprintf(doctorJSON, true), "vmlinuz-5.10.0", "possible: true"},
		"a panic":              {"panic: oh", "vmlinuz-6.1.0", "panic: oh"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newReport(t.Output(), 1, &result{Kernel: kernel{file: tt.file}})
			for line := range strings.Lines(job.Line(job.Booted, "x") + job.Line(job.Started, doctorName) + tt.output + "\n" + job.Line(job.Ended, "exit status 1")) {
				p.line(strings.TrimSuffix(line, "\n"))
			}
			if got := p.Jobs[0].Failure; (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("failure %q, want %q", got, tt.want)
			}
		})
	}
}

// What an earlier run found on another kernel stands beside it; what it found on the same kernel does not.
func TestResultsAreKept(t *testing.T) {
	c := &config{state: filepath.Join(t.TempDir(), "state.json")}
	for _, r := range []result{
		{Arch: "arm64", Kernel: kernel{Name: "6.1"}},
		{Arch: "amd64", Kernel: kernel{Name: "6.12"}, Commit: "old"},
		{Arch: "amd64", Kernel: kernel{Name: "6.2"}, Jobs: []jobResult{{Name: "a", Tests: tally{Passed: 3}}}},
		{Arch: "amd64", Kernel: kernel{Name: "6.12"}, Commit: "new"},
	} {
		c.results = nil
		if err := c.load(); err != nil {
			t.Fatal(err)
		}
		c.add(&r)
		if err := c.save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, r := range c.results {
		got = append(got, r.Arch+" "+r.Kernel.Name+" "+r.Commit)
	}
	if want := []string{"amd64 6.2 ", "amd64 6.12 new", "arm64 6.1 "}; !slices.Equal(got, want) || c.results[0].cell("a") != "ok 3" {
		t.Errorf("kept %q, want %q", got, want)
	}
	write(t, c.state, "[")
	if err := c.load(); err == nil || !strings.Contains(err.Error(), c.state) {
		t.Errorf("a broken file: %v; want an error that names it", err)
	}
}
