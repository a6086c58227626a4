package aggregate

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/pprof"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/symbolize"
)

const selfImage objfile.ImageID = 2

func noImages(objfile.ImageID) *objfile.Image { return nil }

// self is this test binary as the only image, and its load bias.
func self(t *testing.T) (symbolize.Images, uint64) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	images, file := open(t, exe)
	table, err := file.Pclntab()
	if err != nil {
		t.Fatal(err)
	}
	here := reflect.ValueOf(self).Pointer()
	name := runtime.FuncForPC(here).Name()
	return images, uint64(here) - table.Lookup(name)[name].Entry
}

// open makes the file the only image.
func open(t *testing.T, exe string) (symbolize.Images, *objfile.File) {
	t.Helper()
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file, err := objfile.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	im := &objfile.Image{ID: selfImage, Path: exe, BuildID: file.BuildID(), File: file}
	return func(id objfile.ImageID) *objfile.Image {
		if id == selfImage {
			return im
		}
		return nil
	}, file
}

type lineOf struct {
	Func, File      string
	Line, StartLine int64
}

// stacks sums a profile's samples by what a reader sees; the runtime's asyncPreempt frames, which are
// elided on our side, are left out.
func stacks(p *profile.Profile) map[string]Value {
	m := make(map[string]Value)
	for _, s := range p.Sample {
		var b strings.Builder
		for _, l := range s.Location {
			for _, line := range l.Line {
				f := line.Function
				if b.Len() == 0 && strings.HasPrefix(f.Name, "runtime.asyncPreempt") {
					continue
				}
				fmt.Fprintln(&b, lineOf{f.Name, f.Filename, line.Line, f.StartLine})
			}
			if b.Len() > 0 {
				b.WriteString("-\n") // what is inlined into what is compared, too
			}
		}
		fmt.Fprint(&b, s.Label)
		v := m[b.String()]
		m[b.String()] = Value{v.Count + s.Value[0], v.Sum + s.Value[1]}
	}
	return m
}

var result int

func busy(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		list := make([]int, 3000)
		for i := range list {
			list[i] = (i * 7919) % 3001
		}
		sort.Sort(sort.Reverse(sort.IntSlice(list)))
		slices.Sort(list)
		result += len(fmt.Sprint(list[:100]))
	}
}

// runtimeProfile is what runtime/pprof says about some work in this process, more of it where others take the CPU.
func runtimeProfile(t *testing.T) *profile.Profile {
	t.Helper()
	for d := 200 * time.Millisecond; d < 5*time.Second; d *= 2 {
		if p := profileFor(t, d); len(p.Sample) >= 10 {
			return p
		}
	}
	t.Fatal("runtime/pprof takes no samples: no CPU time for this test")
	return nil
}

func profileFor(t *testing.T, d time.Duration) *profile.Profile {
	t.Helper()
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		t.Fatal(err)
	}
	pprof.Do(t.Context(), pprof.Labels("work", "sort", "path", "/x"), func(context.Context) { busy(3 * d) })
	busy(d)
	pprof.StopCPUProfile()
	p, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The addresses in the runtime's own profile, counted and symbolized by us, must give the runtime's own stacks.
func TestProfileEqualsTheRuntimes(t *testing.T) {
	images, bias := self(t)
	want := runtimeProfile(t)
	table := New(Limits{})
	for _, s := range want.Sample {
		var list []Label
		for k, v := range s.Label {
			list = append(list, Label{k, v[0]})
		}
		var stack Stack
		for _, l := range s.Location {
			stack = append(stack, objfile.Addr{Image: selfImage, Off: l.Address - bias})
		}
		for range s.Value[0] {
			table.Add(Key{Target: 9, Labels: table.Labels(list, Numbers{})}, stack, want.Period)
		}
	}
	sym := symbolize.New(images, nil)
	built := slices.Collect(table.Build(images, sym, BuildOptions{Period: want.Period, Start: time.Unix(0, want.TimeNanos), Duration: time.Duration(want.DurationNanos)}))
	if len(built) != 1 || built[0].Target != 9 {
		t.Fatalf("%+v", built)
	}
	got := roundTrip(t, built[0].Profile)
	if d := cmp.Diff(stacks(want), stacks(got)); d != "" {
		t.Errorf("-runtime/pprof +Build:\n%s", d)
	}
	for name, pair := range map[string][2]any{
		"sample types": {want.SampleType, got.SampleType}, "period type": {want.PeriodType, got.PeriodType},
		"period": {want.Period, got.Period}, "default": {want.DefaultSampleType, got.DefaultSampleType},
		"time": {want.TimeNanos, got.TimeNanos}, "duration": {want.DurationNanos, got.DurationNanos},
	} {
		if stringed(pair[0]) != stringed(pair[1]) {
			t.Errorf("%s: %v, want %v", name, stringed(pair[1]), stringed(pair[0]))
		}
	}
	checkMapping(t, got)
}

func stringed(v any) string {
	switch v := v.(type) {
	case []*profile.ValueType:
		var s string
		for _, t := range v {
			s += t.Type + "/" + t.Unit + " "
		}
		return s
	case *profile.ValueType:
		return v.Type + "/" + v.Unit
	}
	return fmt.Sprint(v)
}

func roundTrip(t *testing.T, p *profile.Profile) *profile.Profile {
	t.Helper()
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.WriteUncompressed(&b); err != nil { // compression would take most of a fuzz target's time
		t.Fatal(err)
	}
	got, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != p.String() {
		t.Errorf("changed by Write and Parse:\n%s\n%s", p, got)
	}
	return got
}

func checkMapping(t *testing.T, p *profile.Profile) {
	t.Helper()
	if len(p.Mapping) != 1 {
		t.Fatalf("%d mappings", len(p.Mapping))
	}
	m := p.Mapping[0]
	if !m.HasFunctions || !m.HasFilenames || !m.HasLineNumbers || !m.HasInlineFrames || m.BuildID == "" {
		t.Errorf("mapping %+v", m)
	}
	for _, l := range p.Location {
		if l.Mapping != m || l.Address < m.Start || l.Address >= m.Limit {
			t.Errorf("location %#x is outside of %#x-%#x", l.Address, m.Start, m.Limit)
		}
	}
}

const program = `package main

import "os"

//go:noinline
func work(n int) (sum int) {
	for i := range n {
		sum += i * i
	}
	return sum
}

func main() { os.Exit(work(len(os.Args)) & 1) }
`

// go tool pprof opens the binary by our mapping and must find the function where our address is.
func TestMappingsFitTheBinary(t *testing.T) {
	for _, mode := range []string{"exe", "pie"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			exe := filepath.Join(dir, "prog")
			if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644); err != nil {
				t.Fatal(err)
			}
			build := exec.CommandContext(t.Context(), "go", "build", "-buildmode="+mode, "-o", exe, filepath.Join(dir, "main.go"))
			build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			images, file := open(t, exe)
			table, err := file.Pclntab()
			if err != nil {
				t.Fatal(err)
			}
			fn, ok := table.Lookup("main.work")["main.work"]
			if !ok {
				t.Fatal("no main.work")
			}
			counts := New(Limits{})
			for pc := fn.Entry; pc < fn.End; pc++ {
				counts.Add(Key{}, Stack{{Image: selfImage, Off: pc}}, 1e6)
			}
			for b := range counts.Build(images, symbolize.New(images, nil), BuildOptions{}) {
				checkDisassembly(t, roundTrip(t, b.Profile), symbolSize(t, exe, "main.work")-1) // cmd/pprof leaves the last byte of a symbol out
			}
		})
	}
}

// symbolSize is without the padding that gopclntab counts to the function.
func symbolSize(t *testing.T, exe, name string) uint64 {
	t.Helper()
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == name {
			return s.Size
		}
	}
	t.Fatalf("no symbol %s", name)
	return 0
}

func checkDisassembly(t *testing.T, p *profile.Profile, samples uint64) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "p.pb.gz")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-unit=ms", `-disasm=main\.work`, p.Mapping[0].File, name).CombinedOutput()
	want := fmt.Sprintf("%dms", samples)
	if err != nil || !strings.Contains(string(out), "ROUTINE ======================== main.work\n") ||
		!strings.Contains(string(out), " "+want+" ") || !strings.Contains(string(out), "main.go:8") {
		t.Errorf("go tool pprof -disasm: %v, want %s in\n%.3000s", err, want, out)
	}
}

func checkBuild(t *testing.T, table *Table) {
	t.Helper()
	s := table.Stats()
	for _, merge := range []bool{false, true} {
		var sum Value
		for kind := range uint8(2) {
			o := BuildOptions{Kind: kind, Merge: merge}
			for b := range table.Build(noImages, symbolize.New(noImages, &symbolize.Options{Kallsyms: "/none"}), o) {
				roundTrip(t, b.Profile)
				var total int64
				for _, s := range b.Profile.Sample {
					total += s.Value[0]
					if len(s.Location) == 0 {
						t.Error("sample without location")
					}
				}
				if total != b.Samples.Count+b.Lost.Count {
					t.Errorf("%d in the profile, %+v %+v", total, b.Samples, b.Lost)
				}
				sum.Count += total
			}
		}
		if sum.Count != int64(s.Samples+s.Lost) {
			t.Errorf("merge %v: %d in all profiles, %d samples, %d lost", merge, sum.Count, s.Samples, s.Lost)
		}
	}
}

func names(s *profile.Sample) (list []string) {
	for _, l := range s.Location {
		for _, line := range l.Line {
			list = append(list, line.Function.Name)
		}
	}
	return list
}

func TestWhatIsMissingIsShown(t *testing.T) {
	table := New(Limits{})
	a := objfile.Addr{Off: 0x10}
	table.Add(Key{Status: Truncated}, Stack{a}, 1)
	table.Add(Key{Status: Broken}, Stack{a}, 2)
	table.Add(Key{}, nil, 3)
	table.Lost(0, 0, "ring buffer full", 4, 40)
	checkBuild(t, table)
	got := make(map[string][]int64)
	for b := range table.Build(noImages, symbolize.New(noImages, nil), BuildOptions{Comments: []string{"pprofd 1"}}) {
		for _, s := range b.Profile.Sample {
			got[fmt.Sprint(names(s), s.Label)] = s.Value
		}
		if d := cmp.Diff([]string{"pprofd 1"}, roundTrip(t, b.Profile).Comments); d != "" {
			t.Error(d)
		}
		if b.Samples != (Value{3, 6}) || b.Lost != (Value{4, 40}) {
			t.Errorf("%+v %+v", b.Samples, b.Lost)
		}
	}
	want := map[string][]int64{
		"[[unknown]+0x10 [truncated]] map[]": {1, 1}, "[[unknown]+0x10 [broken]] map[]": {1, 2},
		"[[unknown]] map[]": {1, 3}, "[[lost]] map[lost:[ring buffer full]]": {4, 40},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMergeAndTargetLabels(t *testing.T) {
	table := New(Limits{})
	stack := Stack{{Off: 0x10}, {Off: 0x20}}
	for target := range uint32(3) {
		table.Add(Key{Target: target, Labels: table.Labels([]Label{{"k", "v\xff"}}, Numbers{Goid: 5, TID: 6})}, stack, 10)
	}
	table.Lost(1, 0, "x", 1, 1)
	build := func(o BuildOptions) []Built {
		return slices.Collect(table.Build(noImages, symbolize.New(noImages, nil), o))
	}
	if n := len(build(BuildOptions{})); n != 3 {
		t.Errorf("%d profiles", n)
	}
	merged := build(BuildOptions{Merge: true})
	if len(merged) != 1 || len(merged[0].Profile.Sample) != 2 {
		t.Fatalf("%+v", merged)
	}
	s := roundTrip(t, merged[0].Profile).Sample[0]
	want := &profile.Sample{Value: []int64{3, 30}, Label: map[string][]string{"k": {"v\uFFFD"}}, NumLabel: map[string][]int64{"goid": {5}, "tid": {6}}}
	if !maps.EqualFunc(s.Label, want.Label, slices.Equal) || !maps.EqualFunc(s.NumLabel, want.NumLabel, slices.Equal) || !slices.Equal(s.Value, want.Value) {
		t.Errorf("%+v", s)
	}
	labelled := build(BuildOptions{Merge: true, TargetLabels: func(n uint32) []Label { return []Label{{"pid", fmt.Sprint(n)}} }})
	if n := len(labelled[0].Profile.Sample); n != 4 {
		t.Errorf("%d samples with a label per target", n)
	}
}

// Addresses in one kernel function become one location, whose address does not tell where the kernel lies.
func TestKernelLocations(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kallsyms")
	if err := os.WriteFile(file, []byte("ffffffff81000000 T _text\nffffffff81000100 T work\nffffffff81000200 T end\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	table := New(Limits{})
	for off := range uint64(3) {
		table.Add(Key{}, Stack{{Image: objfile.KernelImage, Off: 0xffffffff81000110 + off}, {Off: 0x10}}, 1)
	}
	for b := range table.Build(noImages, symbolize.New(noImages, &symbolize.Options{Kallsyms: file}), BuildOptions{}) {
		p := roundTrip(t, b.Profile)
		if len(p.Sample) != 1 || p.Sample[0].Value[0] != 3 {
			t.Fatalf("%s", p)
		}
		l := p.Sample[0].Location[0]
		if l.Address != 0x100 || l.Line[0].Function.Name != "work" || l.Mapping.File != "[kernel.kallsyms]" || !l.Mapping.HasFunctions || l.Mapping.HasFilenames {
			t.Errorf("%+v %+v", l, l.Mapping)
		}
	}
}

// TestManyAddressesAreBuiltByProgram: targets of one program follow one another where not all addresses can be remembered;
// else, and among those, the order is that of the targets. Nobody is left out.
func TestManyAddressesAreBuiltByProgram(t *testing.T) {
	table := New(Limits{})
	for target := uint32(1); target <= 6; target++ {
		table.Add(Key{Target: target}, Stack{{Image: objfile.ImageID(2 + target%2), Off: uint64(target)}}, 1)
	}
	o := BuildOptions{Main: func(target uint32) objfile.ImageID { return objfile.ImageID(2 + target%2) }}
	for cache, want := range map[int][]uint32{100: {1, 2, 3, 4, 5, 6}, 5: {2, 4, 6, 1, 3, 5}} {
		var got []uint32
		for b := range table.Build(noImages, symbolize.New(noImages, &symbolize.Options{MaxCache: cache}), o) {
			got = append(got, b.Target)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d addresses remembered: %v, want %v", cache, got, want)
		}
	}
}
