package main

import (
	"os"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestShort: every profiler runs, has seen allocations, and its lines are there. What they say is not judged: windows are
// short.
func TestShort(t *testing.T) {
	needs.Root(t)
	needs.BPF(t)
	needs.Tool(t, "bpftrace")
	var c config
	c.shorten()
	var out strings.Builder
	if err := run(t.Context(), &out, &c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"BenchmarkAllocs/rate=100MBps/profiler=own 1 ", "BenchmarkAllocs/rate=100MBps/profiler=own+read 1 ",
		"BenchmarkAllocs/rate=100MBps/profiler=probe 1 ", "BenchmarkAllocs/rate=100MBps/profiler=probe-always 1 ", "# computed from",
		"BenchmarkAllocs/rate=100MBps/profiler=mallocgc 1 ", "# own+read at 100 MB/s",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestStacksOf: counts of stacks go to the function that takes turns, and to nobody else.
func TestStacksOf(t *testing.T) {
	const output = "Attaching 1 probe...\n\n\n@[\n    runtime.(*mcache).refill+4\n    runtime.mallocgc+99\n    main.siteB+12\n    main.(*worker).run+1\n]: 7\n" +
		"@[\n    runtime.(*mcache).refill+4\n    main.main+1\n]: 100\n@[\n    main.siteA+12\n]: 21\n"
	shares, err := sharesOf(stacksOf(output), 2)
	if err != nil || shares[0] != 75 || shares[1] != 25 {
		t.Errorf("%v, %v", shares, err)
	}
	if _, err := sharesOf(stacksOf("no stacks"), 2); err == nil {
		t.Error("shares of nothing")
	}
}
