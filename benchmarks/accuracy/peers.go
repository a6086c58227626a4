package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

// converter makes a profile of what an agent left behind, and of what it wrote to standard output.
type converter func(ctx context.Context, h *agents.Harness, output string) (*builder, error)

// peer samples by another profiler, which runs as a command.
func (m *measurer) peer(name string, convert converter) sampler {
	return func(ctx context.Context, pid int, d time.Duration) (taken, error) {
		all := agents.All()
		i := slices.IndexFunc(all, func(a agents.Agent) bool { return a.Name == name })
		if i < 0 {
			return taken{}, fmt.Errorf("no agent is called %s", name)
		}
		vdso, err := vdsoOf(pid)
		if err != nil {
			return taken{}, err
		}
		run, err := m.harness.Run(ctx, all[i], agents.Sampling{PID: pid, Hz: hz, D: d})
		if err != nil {
			return taken{}, err
		}
		if err := run.Wait(); err != nil {
			return taken{}, err
		}
		b, err := convert(ctx, m.harness, run.Output.String())
		if err != nil {
			return taken{}, err
		}
		p, err := b.profile(vdso)
		return taken{agent: name, profile: p}, err
	}
}

// vdsoOf finds where the vDSO of a process lies. Agents do not name it, nor does the truth.
func vdsoOf(pid int) (*profile.Mapping, error) {
	maps, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "maps"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(maps)) {
		m := &profile.Mapping{File: "[vdso]"}
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x", &m.Start, &m.Limit)
			return m, err
		}
	}
	return nil, fmt.Errorf("process %d has no vDSO", pid)
}

// perfProfile reads perf.data through perf script: a line for each frame, innermost first, and empty lines between samples.
func perfProfile(ctx context.Context, h *agents.Harness, _ string) (*builder, error) {
	out, err := board.Command(ctx, "perf", "script", "-F", "ip,sym,dso", "-i", filepath.Join(h.Dir, "perf.data"))
	if err != nil {
		return nil, err
	}
	b := &builder{}
	return b, b.perf(out)
}

func bpftraceProfile(_ context.Context, _ *agents.Harness, output string) (*builder, error) {
	b := &builder{}
	return b, b.bpftrace(output)
}

// stackFrame is a frame as an agent prints it.
type stackFrame struct {
	address uint64
	name    string
	file    string
}

// builder makes a profile of stacks with names.
type builder struct {
	samples []builtSample
}

type builtSample struct {
	frames []stackFrame
	count  int64
}

func (b *builder) perf(out string) error {
	var frames []stackFrame
	for sc := lineScanner(out + "\n\n"); sc.Scan(); {
		if strings.TrimSpace(sc.Text()) != "" {
			f, err := parsePerfFrame(sc.Text())
			if err != nil {
				return err
			}
			frames = append(frames, f)
		} else if frames != nil {
			b.samples = append(b.samples, builtSample{frames, 1})
			frames = nil
		}
	}
	if len(b.samples) == 0 {
		return errors.New("perf recorded no samples")
	}
	return nil
}

// perfFrame is such as "	  50a44e main.frameless (/tmp/mixed)"; instead of the file stands "inlined" where perf knows that.
var perfFrame = regexp.MustCompile(`^\s*([0-9a-f]+) (.*) \((.*)\)$`)

func parsePerfFrame(line string) (stackFrame, error) {
	m := perfFrame.FindStringSubmatch(line)
	if m == nil {
		return stackFrame{}, fmt.Errorf("perf script: cannot read %q", line)
	}
	address, err := strconv.ParseUint(m[1], 16, 64)
	return stackFrame{address, m[2], m[3]}, err
}

// bpftraceFrame is such as "	50a44e main.frameless+17 (/tmp/mixed)", or without the file in the kernel.
var (
	bpftraceFrame = regexp.MustCompile(`^\s+([0-9a-f]+) (.*)\+(?:0x)?[0-9a-f]+(?: \((.*)\))?$`)
	bpftraceRaw   = regexp.MustCompile(`^\s+([0-9a-f]+) (0x[0-9a-f]+|\[unknown\])(?: \((.*)\))?$`)
	bpftraceCount = regexp.MustCompile(`\]: (\d+)$`)
)

// bpftrace reads a map that counts by stacks: "@[", the frames, "]: 12" behind the last.
func (b *builder) bpftrace(out string) error {
	var frames []stackFrame
	for sc := lineScanner(out); sc.Scan(); {
		line := sc.Text()
		f, isFrame := parseBpftraceFrame(line)
		switch count := bpftraceCount.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "@["):
			frames = nil
		case isFrame:
			frames = append(frames, f)
		case count != nil:
			n, err := strconv.ParseInt(count[1], 10, 64)
			if err != nil {
				return err
			}
			b.samples = append(b.samples, builtSample{frames, n})
		}
	}
	if len(b.samples) == 0 {
		return fmt.Errorf("bpftrace counted no samples; it says: %.500s", out)
	}
	return nil
}

func parseBpftraceFrame(line string) (stackFrame, bool) {
	m := bpftraceRaw.FindStringSubmatch(line)
	if m == nil {
		m = bpftraceFrame.FindStringSubmatch(line)
	}
	if m == nil {
		return stackFrame{}, false
	}
	address, err := strconv.ParseUint(m[1], 16, 64)
	return stackFrame{address, m[2], m[3]}, err == nil
}

func lineScanner(text string) *bufio.Scanner {
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, 1<<20)
	return sc
}

// methodValue ends the names of the functions that method values call. The method is inlined there, as a rule: the name stands for it
// unless it has a frame of its own. The truth shows the method, and that alone.
const methodValue = "-fm"

// goWrapper is what the compiler makes of the workload's "go work(...)" up to Go 1.21 (main.main.gowrap1 since): the truth elides it.
const goWrapper = "main.main.func1"

// profile has a location for each distinct frame.
func (b *builder) profile(vdso *profile.Mapping) (*profile.Profile, error) {
	const period = 1_000_000_000 / hz
	code := &profile.Mapping{ID: 1, File: "code"}
	vdso.ID = 2
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		Mapping:    []*profile.Mapping{code, vdso},
	}
	locations := map[stackFrame]*profile.Location{}
	for _, s := range b.samples {
		sample := &profile.Sample{Value: []int64{s.count, s.count * period}}
		for i, f := range s.frames {
			if f.name == goWrapper {
				continue
			}
			if i == 0 || s.frames[i-1].name+methodValue != f.name {
				f.name = strings.TrimSuffix(f.name, methodValue)
			}
			l := locations[f]
			if l == nil {
				l = newLocation(p, f, vdso)
				locations[f] = l
			}
			sample.Location = append(sample.Location, l)
		}
		p.Sample = append(p.Sample, sample)
	}
	return p, p.CheckValid()
}

func newLocation(p *profile.Profile, f stackFrame, vdso *profile.Mapping) *profile.Location {
	fn := &profile.Function{ID: uint64(len(p.Function) + 1), Name: f.name}
	l := &profile.Location{ID: fn.ID, Address: f.address, Mapping: p.Mapping[0], Line: []profile.Line{{Function: fn}}}
	if f.address >= vdso.Start && f.address < vdso.Limit || f.file == "[vdso]" {
		l.Mapping = vdso
	}
	p.Function, p.Location = append(p.Function, fn), append(p.Location, l)
	return l
}

// shapes are type arguments, which stand in symbols. runtime/pprof shortened them up to Go 1.20.
var shapes = regexp.MustCompile(`\[go\.shape\..*\]`)

func shorten(name string) string { return shapes.ReplaceAllString(name, "[...]") }

// nameAs shortens the names of p where those of the truth are short.
func nameAs(truth, p *profile.Profile) {
	if slices.ContainsFunc(truth.Function, func(f *profile.Function) bool { return f.Name != shorten(f.Name) }) {
		return
	}
	for _, f := range p.Function {
		f.Name = shorten(f.Name)
	}
}
