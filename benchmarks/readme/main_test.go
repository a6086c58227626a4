package main

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// TestREADME: it shows what the newest results say.
func TestREADME(t *testing.T) {
	have, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := rewrite(string(have), os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(have)); d != "" {
		t.Errorf("make board would change README.md:\n%s", d)
	}
}

// TestRewrite: the newest file of each board, its medians, and its picture where there is one.
func TestRewrite(t *testing.T) {
	root := fstest.MapFS{}
	add := func(path, text string) { root[results+"/"+path] = &fstest.MapFile{Data: []byte(text)} }
	add("overhead-2026-01-01.txt", "BenchmarkThroughput/processes=1/hz=99/agent=pprofd 1 0.5 on/off\n")
	add("overhead-2026-01-02.txt", `date: 2026-01-02 10:00:00
cpus: 2
BenchmarkThroughput/processes=1/hz=99/agent=pprofd 1 0.997 on/off
BenchmarkThroughput/processes=1/hz=99/agent=pprofd 1 0.999 on/off
BenchmarkComputed/processes=1/hz=99/agent=pprofd 1 0.19 %interrupt 0.03 %BPF 0.1 %agent
`)
	add("overhead-2026-01-02.svg", "<svg/>")
	add("allocs-2026-01-02.txt", "BenchmarkAllocs/rate=100MBps/profiler=own+read 1 0.5 on/off 0.99 cpu-on/off 99 MB/s 101 off-MB/s\n")
	add("scale-2026-01-02.txt", "BenchmarkScale/cpus=256/processes=2000/binaries=200 9 4.5 %core 6 %core-with-write 1e8 steady-RSS-B 1.4e8 peak-RSS-B 0 lost\n")
	add("fleet-2026-01-02.txt", "BenchmarkFleet/load=idle/services=200/programs=20/others=0 1 0.7 %core 0.02 %BPF 6e7 steady-RSS-B 7e7 peak-RSS-B 0.81 sampled-s 0 lost\n"+
		"BenchmarkFleet/load=churn/services=200/programs=20/others=1800 1 0.8 %core-of-finding 1.5 %core-with-starts "+
		"1.2 ms-a-process-by-starts 400 go-starts 399 counted\n"+
		"BenchmarkFleet/load=short/services=0/programs=0/others=0 1 200 go-starts 1.03 profiled/used\n")
	add("delivery-2026-01-02.txt", "BenchmarkExport/load=one/hz=19/to=parca 1 31 B/sample 2.1e6 B/core-h\nBenchmarkExportWindow/processes=200/to=parca 1 0.21 cpu-s/window\n")
	got, err := rewrite("above\n"+begin+"old\n"+end+"below\n", root)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"above\n", "below\n", "![overhead](benchmarks/results/overhead-2026-01-02.svg)", "| 1 | 99 | pprofd | 0.998 (0.997 … 0.999) | 0.32 % |",
		"| 101 MB/s | the same, read by pprofd | 0.990 (0.990 … 0.990) |",
		"the agent takes 0.80 % in all if it finds and names all processes and profiles none, 1.50 % with profiles of all",
		"of each that starts add 1.2 ms of CPU time",
		"| 200 idle services | 0.70 % | 0.02 % | 60 / 70 MB | 0.8 s | 0 |", "Profiles of 200 such processes at 99 Hz contain 103 % of the",
		"| Parca | 31 B/sample, 2.1 MB/core-h | –, – | –, – | –, – | 0.21 s of CPU time |",
		"|  256 | 2000 | 200 | 4.50 % of a core | 6.00 % | 100 / 140 MB | 0 |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "old") || strings.Contains(got, "0.5") {
		t.Errorf("something old is left in\n%s", got)
	}
	if _, err := rewrite("no markers", root); err == nil {
		t.Error("no error without markers")
	}
}
