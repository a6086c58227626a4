package main

import (
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
			r := newReport(t.Output(), 1)
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

func TestReportKeepsOnlyTheEndOfALongBoot(t *testing.T) {
	r := newReport(t.Output(), 1)
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
