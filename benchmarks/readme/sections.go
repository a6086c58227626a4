package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// cell is a median, "–" where nothing was measured.
func (m *measured) cell(name, unit, format string, scale float64) string {
	v, ok := m.Median(name, unit)
	if !ok {
		return "–"
	}
	return fmt.Sprintf(format, v*scale)
}

func (m *measured) has(name, unit string) bool {
	_, ok := m.Median(name, unit)
	return ok
}

var costAgents = []string{"pprofd", "bpftrace", "perf"}

// cost is the table of cmd cost: agents side by side.
func cost(b *strings.Builder, m *measured) {
	fmt.Fprintf(b, "| | %s |\n|---|---|---|---|\n", strings.Join([]string{"pprofd", m.facts["bpftrace"], m.facts["perf"]}, " | "))
	rows := []struct {
		text, name, unit, format string
		scale                    float64
	}{}
	for _, frames := range []int{10, 32, 127} { // deeper than 127 is cut by bpftrace
		rows = append(rows, struct {
			text, name, unit, format string
			scale                    float64
		}{fmt.Sprintf("BPF time per sample, %d frames", frames), fmt.Sprintf("BPFTime/frames=%d/agent=", frames), "ns/sample", "%.1f µs", 1e-3})
	}
	rows = append(rows, []struct {
		text, name, unit, format string
		scale                    float64
	}{
		{"CPU time of the agent, two busy cores at 99 Hz, a minute, start and end included", "AgentCost/agent=", "cpu-s/60s", "%.2f s", 1},
		{"peak memory", "AgentCost/agent=", "peak-RSS-B", "%.1f MB", 1e-6},
		{"BPF maps", "AgentCost/agent=", "BPF-maps-B", "%.1f MB", 1e-6},
		{"start to first sample", "FirstSample/agent=", "ms", "%.0f ms", 1},
	}...)
	for _, r := range rows {
		fmt.Fprintf(b, "| %s |", r.text)
		for _, agent := range costAgents {
			cell := m.cell(r.name+agent, r.unit, r.format, r.scale)
			if v, ok := m.Median(r.name+agent, r.unit); ok && v == 0 {
				cell = "–"
			}
			fmt.Fprintf(b, " %s |", cell)
		}
		fmt.Fprintln(b)
	}
}

// overhead is what a service loses, measured and computed.
func overhead(b *strings.Builder, m *measured) {
	fmt.Fprintln(b, "| busy processes | Hz | profiler | throughput with / without | computed from counted parts |\n|---|---|---|---|---|")
	for _, n := range []int{1, 10, 200} {
		for _, hz := range []int{19, 99, 999} {
			for _, agent := range []string{"pprofd", "runtime", "perf", "bpftrace", "peer"} {
				ratios := m.Values(fmt.Sprintf("Throughput/processes=%d/hz=%d/agent=%s", n, hz, agent), "on/off")
				if len(ratios) == 0 {
					continue
				}
				i := board.MedianInterval(ratios)
				fmt.Fprintf(b, "| %d | %d | %s | %.3f (%.3f … %.3f) | %s |\n", n, hz, agent, i.Median, i.Low, i.High,
					m.computed(fmt.Sprintf("Computed/processes=%d/hz=%d/agent=%s", n, hz, agent)))
			}
		}
	}
	if v, ok := m.Median("Memory/agent=pprofd", "base-B"); ok {
		process, _ := m.Median("Memory/agent=pprofd", "B/process") // below what can be measured it may come out negative
		fmt.Fprintf(b, "\nSteady memory of pprofd: %.1f MB, and %s for each program, and %.0f kB for each process.\n", v/1e6,
			m.cell("Memory/agent=pprofd", "B/program", "%.0f kB", 1e-3), max(process, 0)/1e3)
	}
}

// computed is the sum of the parts, in percent of the busy CPUs.
func (m *measured) computed(name string) string {
	sum := 0.0
	for _, unit := range []string{"%interrupt", "%BPF", "%agent"} {
		v, ok := m.Median(name, unit)
		if !ok {
			return "–"
		}
		sum += v
	}
	return fmt.Sprintf("%.2f %%", sum)
}

// allocs is what a program loses whose allocations are profiled.
func allocs(b *strings.Builder, m *measured) {
	fmt.Fprintln(b, "| allocates, unprofiled | allocations profiled by | throughput with / without, in its own CPU time |\n|---|---|---|")
	for _, rate := range []string{"100MBps", "500MBps", "unthrottled"} {
		for _, by := range []struct{ name, text string }{
			{"own", "its own runtime, MemProfileRate 512 KiB"}, {"own+read", "the same, read by pprofd"}, {"probe-always", "pprofd's probes, --alloc-budget 0"}, {"probe", "pprofd's probes"},
			{"mallocgc", "a uprobe of bpftrace on runtime.mallocgc"},
		} {
			name := fmt.Sprintf("Allocs/rate=%s/profiler=%s", rate, by.name)
			ratios := m.Values(name, "cpu-on/off")
			if len(ratios) == 0 {
				continue
			}
			i := board.MedianInterval(ratios)
			fmt.Fprintf(b, "| %s MB/s | %s | %.3f (%.3f … %.3f) |\n", m.cell(name, "off-MB/s", "%.0f", 1), by.text, i.Median, i.Low, i.High)
		}
	}
	turns(b, m)
}

// turns is what functions are given that take turns in allocating objects of one size.
func turns(b *strings.Builder, m *measured) {
	var rows []string
	for _, toolchain := range []string{"go1.22.12", "local"} {
		for _, mode := range []string{"alternate", "three"} {
			for _, gc := range []string{"100", "-1"} {
				name := fmt.Sprintf("Turns/go=%s/mode=%s/GOGC=%s/profiler=", toolchain, mode, gc)
				if _, ok := m.Median(name+"probe-always", "%siteA"); !ok {
					continue
				}
				title := map[string]string{"local": m.facts["go"]}[toolchain]
				if title == "" {
					title = toolchain
				}
				rows = append(rows, fmt.Sprintf("| %s, %s, GOGC=%s | %s | %s |", title, map[string]string{"alternate": "two", "three": "three"}[mode],
					map[string]string{"100": "100", "-1": "off"}[gc], m.given(name+"probe-always"), m.given(name+"refill")))
			}
		}
	}
	if len(rows) > 0 {
		fmt.Fprintf(b, "\n| functions that strictly take turns in allocating objects of one size are given | pprofd, %% | a stack at each refill, %% |\n|---|---|---|\n%s\n", strings.Join(rows, "\n"))
	}
}

// given are the shares of functions.
func (m *measured) given(name string) string {
	var words []string
	for _, unit := range []string{"%siteA", "%siteB", "%siteC"} {
		if _, ok := m.Median(name, unit); ok {
			words = append(words, m.cell(name, unit, "%.0f", 1))
		}
	}
	return strings.Join(words, " / ")
}

// scale is the machine that is not here.
func scale(b *strings.Builder, m *measured) {
	fmt.Fprintln(b, "| simulated CPUs at 99 Hz | processes | programs | user space | with writing profiles each minute | steady / peak memory | lost |\n|---|---|---|---|---|---|---|")
	var rows []string
	for _, name := range m.Names() {
		var cpus, processes, binaries int
		if _, err := fmt.Sscanf(name, "Scale/cpus=%d/processes=%d/binaries=%d", &cpus, &processes, &binaries); err != nil || strings.Contains(name, "pace") {
			continue
		}
		if processes != 2000 && (binaries != 1 || processes != 50) {
			continue
		}
		rows = append(rows, fmt.Sprintf("| %4d | %d | %d | %s of a core | %s | %s / %s | %s |", cpus, processes, binaries, m.cell(name, "%core", "%.2f %%", 1),
			m.cell(name, "%core-with-write", "%.2f %%", 1), m.cell(name, "steady-RSS-B", "%.0f", 1e-6), m.cell(name, "peak-RSS-B", "%.0f MB", 1e-6),
			m.cell(name, "lost", "%.0f", 1)))
	}
	slices.Sort(rows)
	fmt.Fprintln(b, strings.Join(rows, "\n"))
	fmt.Fprintln(b, "\nSamples, programs and memory maps are real ones, recorded here; their number is simulated: see benchmarks/scale/doc.go.")
}

// fleet is what the agent takes beside the processes of a host.
func fleet(b *strings.Builder, m *measured) {
	fmt.Fprintln(b, "| beside `pprofd agent`, 19 Hz | the agent, of one core | its BPF programs | steady / peak memory | all sampled after | lost |\n|---|---|---|---|---|---|")
	for _, s := range []struct{ load, text string }{
		{"empty", "nothing"}, {"idle", "200 idle services"}, {"busy", "200 busy services"}, {"churn", "200 idle services, 1,800 processes that are not Go"},
	} {
		if name := m.load(s.load); name != "" {
			fmt.Fprintf(b, "| %s | %s | %s | %s / %s | %s | %s |\n", s.text, m.cell(name, "%core", "%.2f %%", 1), m.cell(name, "%BPF", "%.2f %%", 1),
				m.cell(name, "steady-RSS-B", "%.0f", 1e-6), m.cell(name, "peak-RSS-B", "%.0f MB", 1e-6), m.cell(name, "sampled-s", "%.1f s", 1), m.cell(name, "lost", "%.0f", 1))
		}
	}
	if name := m.load("churn"); name != "" && m.has(name, "%core-of-finding") {
		fmt.Fprintf(b, "\nWhere 50 processes start a second beside those, 10 of them Go programs that live for 50 ms, the agent takes %s in all if it "+
			"finds and names all processes and profiles none, %s with profiles of all: a profile and a file of each that starts add %s ms of "+
			"CPU time. Of %s that were to be profiled %s were counted.",
			m.cell(name, "%core-of-finding", "%.2f %%", 1), m.cell(name, "%core-with-starts", "%.2f %%", 1), m.cell(name, "ms-a-process-by-starts", "%.1f", 1),
			m.cell(name, "go-starts", "%.0f", 1), m.cell(name, "counted", "%.0f", 1))
	} else if name != "" { // up to the time when finding was not measured apart
		fmt.Fprintf(b, "\n50 starts a second add %s of a core; of %s Go processes that lived for 50 ms %s were counted.",
			m.cell(name, "%core-by-starts", "%.2f %%", 1), m.cell(name, "go-starts", "%.0f", 1), m.cell(name, "counted", "%.0f", 1))
	}
	if name := m.load("short"); name != "" {
		fmt.Fprintf(b, " Profiles of %s such processes at 99 Hz contain %s of the CPU time that they used.", m.cell(name, "go-starts", "%.0f", 1), m.cell(name, "profiled/used", "%.0f %%", 100))
	}
	fmt.Fprintln(b)
}

// load is the name of what was measured in a situation; "": nothing.
func (m *measured) load(load string) string {
	for _, name := range m.Names() {
		if strings.HasPrefix(name, "Fleet/load="+load+"/") {
			return name
		}
	}
	return ""
}

// delivery is what profiles take on the wire and on disk, and what it costs to send them.
func delivery(b *strings.Builder, m *measured) {
	fmt.Fprintln(b, "| CPU profiles, windows of 10 s | one busy core, 19 Hz | 99 Hz | the same time in 200 processes, 19 Hz | 99 Hz | a window of 200 processes |\n|---|---|---|---|---|---|")
	for _, to := range []struct{ name, text string }{
		{"files", "files"}, {"files-in-blocks", "files, as the disk counts"}, {"pyroscope", "Pyroscope, Push API"}, {"ingest", "Pyroscope, `/ingest`"}, {"parca", "Parca"},
		{"otlp", "OTLP, gRPC"}, {"otlphttp", "OTLP, HTTP"},
	} {
		fmt.Fprintf(b, "| %s |", to.text)
		for _, load := range []string{"one", "fleet"} {
			for _, hz := range []int{19, 99} {
				name := fmt.Sprintf("Export/load=%s/hz=%d/to=%s", load, hz, to.name)
				fmt.Fprintf(b, " %s, %s |", m.cell(name, "B/sample", "%.0f B/sample", 1), m.cell(name, "B/core-h", "%.1f MB/core-h", 1e-6))
			}
		}
		fmt.Fprintf(b, " %s |\n", m.cell("ExportWindow/processes=200/to="+to.name, "cpu-s/window", "%.2f s of CPU time", 1))
	}
	fmt.Fprintln(b, "\nMost of a profile is names. In one of 200 processes they serve a few samples.")
}

// goroutines is what it costs to see all of them.
func goroutines(b *strings.Builder, m *measured) {
	fmt.Fprintln(b, "| all goroutines of a process | of how many | takes | holds the process up for | memory |\n|---|---|---|---|---|")
	for _, n := range []int{10_000, 1_000_000} {
		for _, by := range []struct{ name, text string }{
			{"nobody", "nobody asks, for 0.5 s"}, {"pprofd-text", "`pprofd dump`"}, {"own-debug=0", "its own `/debug/pprof/goroutine`"},
			{"own-debug=2", "the same with `debug=2`"}, {"dlv", "`dlv attach`, `goroutines -t`"},
		} {
			name := fmt.Sprintf("Goroutines/n=%d/by=%s", n, by.name)
			if _, ok := m.Median(name, "ms"); ok {
				fmt.Fprintf(b, "| %s | %d | %s | %s | %s |\n", by.text, n, m.cell(name, "ms", "%.0f ms", 1), m.cell(name, "ms-held-up", "%.1f ms", 1), m.cell(name, "MiB", "%.0f MiB", 1))
			}
		}
	}
	fmt.Fprintf(b, "\nOf the time of `pprofd dump` of 10,000 goroutines %s is reading, the rest start and printing.\n", m.cell("Goroutines/n=10000/by=pprofd-text", "read-ms", "%.0f ms", 1))
}

// wall is how right wall-clock profiles are, and what they cost.
func wall(b *strings.Builder, m *measured) {
	fmt.Fprintln(b, "| wall-clock profile of | by | channel / mutex / CPU: truth | profile | points off, all windows | a window | the profiler, of one core | speed of a busy goroutine, with / without |\n|---|---|---|---|---|---|---|---|")
	for _, n := range []int{0, 1_000, 10_000} {
		for _, by := range []struct{ name, text string }{{"pprofd", "`pprofd record -t wall`"}, {"fgprof", "fgprof, in the program"}} {
			bias, shares := fmt.Sprintf("WallBias/idle=%d/by=%s", n, by.name), fmt.Sprintf("WallShares/idle=%d/by=", n)
			if !m.has(bias, "points-off") {
				continue
			}
			fmt.Fprintf(b, "| 4 goroutines, %d idle ones | %s | %s | %s | %s ± %s | %s | %s | %s |\n", n, by.text, m.phases(bias, "-truth"), m.phases(bias, ""),
				m.cell(bias, "points-off", "%.1f", 1), m.cell(bias, "points-chance", "%.1f", 1), m.cell(shares+by.name, "points-off", "%.1f", 1),
				m.coreOf(shares, by.name), m.cell(fmt.Sprintf("WallCost/idle=%d/by=%s", n, by.name), "on/off", "%.3f", 1))
		}
	}
	fmt.Fprintln(b, "\nThe profiler's CPU time is that of its process, its start included, and what the program takes for it. ± is chance, the standard error of the\n"+
		"mean of all windows, which are of 5 s and 8 s: of 10,000 goroutines pprofd takes 2 snapshots a second, and a window has few. –: not measured yet.")
}

// phases are the shares of the three.
func (m *measured) phases(name, suffix string) string {
	var words []string
	for _, phase := range []string{"%receive", "%lock", "%compute"} {
		words = append(words, m.cell(name, phase+suffix, "%.1f", 1))
	}
	return strings.Join(words, " / ")
}

// coreOf is what a profiler takes of a core: its own process, and what the program takes besides its computing more than beside nobody.
func (m *measured) coreOf(prefix, by string) string {
	with, ok := m.Median(prefix+by, "%core-extra")
	without, _ := m.Median(prefix+"nobody", "%core-extra")
	if !ok {
		return "–"
	}
	outside, _ := m.Median(prefix+by, "%core")
	return fmt.Sprintf("%.1f %%", outside+max(with-without, 0))
}
