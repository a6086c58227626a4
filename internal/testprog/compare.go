package testprog

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// depthLimit is where stacks are cut before they are compared. runtime/pprof keeps 64 frames
// (runtime/cpuprof.go: maxCPUProfStack); a few of them may be ones that normalization removes.
const depthLimit = 56

// maxMisses bounds Agreement.Misses.
const maxMisses = 50

// CompareOptions may be zero.
type CompareOptions struct {
	KeepWrappers bool     // compare compiler-generated wrappers, too, instead of leaving them out on both sides
	LeaveOutC    bool     // samples in C code count as excluded on both sides
	IgnoreLabels []string // keys of labels that only one side has, such as a thread id
}

// Agreement says how far a profile agrees with the truth. Shares are of weight (nanoseconds of CPU), 0 to 1.
type Agreement struct {
	Weight   int64 // of all samples that were compared
	Excluded int64 // weight of samples that a profile driven by signals cannot contain, or that the options leave out

	Stacks     float64 // whole stack of function names also stands in the truth
	Leaf       float64 // innermost function is a leaf in the truth
	LeafCaller float64 // innermost function with its caller are the first two in some stack of the truth
	Lines      float64 // call sites (caller, line, callee) that stand in the truth, among frames of right stacks
	Labels     float64 // stacks with their labels stand in the truth, among right stacks

	Flat float64 // total-variation distance of the distribution over leaf functions: 0 same, 1 disjoint
	Cum  float64 // distance of cumulative weights by function: sum |a-b| / sum (a+b)

	Misses []Miss // heaviest stacks that the truth does not have
}

// Miss is a stack that the truth does not have.
type Miss struct {
	Stack  []string // innermost first, after normalization
	Weight int64
	Shared int // this many frames, counted from the leaf, are the beginning of some stack of the truth
}

// Compare judges got by truth, which is a profile by runtime/pprof of the same program at the same work.
//
// Both sides are normalized first: kernel and vDSO frames go, runtime.asyncPreempt and its callees at the leaf
// go (an artefact of the truth's own signals), so do compiler-generated wrappers and what is below a
// goroutine's or thread's first function (goexit, mstart, clone); stacks are cut to 56 frames from the leaf, for the
// runtime keeps 64. Samples inside a signal handler and in sysmon are left out.
func Compare(truth, got *profile.Profile, opts *CompareOptions) Agreement {
	if opts == nil {
		opts = &CompareOptions{}
	}
	want := collect(truth, opts)
	have := collect(got, opts)
	a := Agreement{Weight: have.weight, Excluded: have.excluded}
	a.Stacks, a.Misses = want.judge(have)
	a.Leaf = share(have.flat, want.flat)
	a.LeafCaller = share(have.pairs, want.pairs)
	a.Labels = want.judgeLabels(have)
	a.Lines = want.judgeLines(have)
	a.Flat = distance(want.flat, want.weight, have.flat, have.weight)
	a.Cum = distance(want.cum, want.weight, have.cum, have.weight)
	return a
}

// String shows the shares and the ten heaviest misses.
func (a Agreement) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "stacks %.2f%% leaf %.2f%% leaf+caller %.2f%% lines %.2f%% labels %.2f%% flat %.3f cum %.3f weight %d excluded %d\n",
		100*a.Stacks, 100*a.Leaf, 100*a.LeafCaller, 100*a.Lines, 100*a.Labels, a.Flat, a.Cum, a.Weight, a.Excluded)
	for _, m := range a.Misses[:min(10, len(a.Misses))] {
		fmt.Fprintf(&b, "  %5.2f%% (%d shared) %s\n", 100*float64(m.Weight)/float64(max(a.Weight, 1)), m.Shared, strings.Join(m.Stack, " < "))
	}
	return b.String()
}

// frame is a function with the line at which it calls the one before.
type frame struct {
	fn   string
	line int64
	inGo bool // not in assembly or C
}

// stacks are the samples of one profile, summed up by what Compare asks for. Keys are frames joined by newlines.
type stacks struct {
	weight, excluded int64
	names            map[string]int64            // whole stacks
	labelled         map[string]map[string]int64 // stack -> labels -> weight
	pairs            map[string]int64            // leaf and its caller
	flat, cum        map[string]int64            // by function
	calls            map[string]map[string]int64 // stack -> call site -> weight
	prefixes         map[string]bool             // beginnings of stacks
}

func collect(p *profile.Profile, opts *CompareOptions) *stacks {
	s := &stacks{names: map[string]int64{}, labelled: map[string]map[string]int64{}, pairs: map[string]int64{},
		flat: map[string]int64{}, cum: map[string]int64{}, calls: map[string]map[string]int64{}, prefixes: map[string]bool{}}
	index := weightIndex(p)
	for _, sample := range p.Sample {
		if frames := normalize(sample, opts); unseen(frames) || opts.LeaveOutC && inC(sample) {
			s.excluded += sample.Value[index]
		} else {
			s.add(frames, labelKey(sample, opts), sample.Value[index])
		}
	}
	return s
}

// weightIndex prefers nanoseconds of CPU to counts.
func weightIndex(p *profile.Profile) int {
	return max(0, slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Type == "cpu" }))
}

func (s *stacks) add(frames []frame, labels string, weight int64) {
	s.weight += weight
	names := functions(frames)
	key := strings.Join(names, "\n")
	s.names[key] += weight
	addTo(s.labelled, key, labels, weight)
	if len(names) == 0 {
		return
	}
	s.flat[names[0]] += weight
	s.pairs[strings.Join(names[:min(2, len(names))], "\n")] += weight
	for _, name := range unique(names) {
		s.cum[name] += weight
	}
	for i := 1; i < len(frames); i++ {
		addTo(s.calls, key, fmt.Sprintf("%s:%d\n%s", frames[i].fn, frames[i].line, names[i-1]), weight)
	}
	for i := range names {
		s.prefixes[strings.Join(names[:i+1], "\n")] = true
	}
}

func addTo(m map[string]map[string]int64, key, inner string, weight int64) {
	if m[key] == nil {
		m[key] = map[string]int64{}
	}
	m[key][inner] += weight
}

// judge returns the share of have's weight whose stacks s has, and the heaviest others.
func (s *stacks) judge(have *stacks) (float64, []Miss) {
	var misses []Miss
	for key, weight := range have.names {
		if _, ok := s.names[key]; !ok {
			misses = append(misses, Miss{Stack: strings.Split(key, "\n"), Weight: weight})
		}
	}
	slices.SortFunc(misses, func(a, b Miss) int {
		if a.Weight != b.Weight {
			return int(b.Weight - a.Weight)
		}
		return slices.Compare(a.Stack, b.Stack)
	})
	misses = misses[:min(maxMisses, len(misses))]
	for i := range misses {
		misses[i].Shared = s.sharedFrames(misses[i].Stack)
	}
	return share(have.names, s.names), misses
}

func (s *stacks) sharedFrames(stack []string) int {
	for n := len(stack); n > 0; n-- {
		if s.prefixes[strings.Join(stack[:n], "\n")] {
			return n
		}
	}
	return 0
}

// judgeLabels is the share of have's weight with right labels, among stacks that s has.
func (s *stacks) judgeLabels(have *stacks) float64 {
	var right, all int64
	for key, byLabels := range have.labelled {
		if s.labelled[key] == nil {
			continue
		}
		for labels, weight := range byLabels {
			all += weight
			if _, ok := s.labelled[key][labels]; ok {
				right += weight
			}
		}
	}
	return ratio(right, all)
}

// judgeLines is the share of call sites, weighted by samples, that s has anywhere, among stacks that s has.
func (s *stacks) judgeLines(have *stacks) float64 {
	sites := map[string]bool{}
	for _, calls := range s.calls {
		for site := range calls {
			sites[site] = true
		}
	}
	var right, all int64
	for key, calls := range have.calls {
		if _, ok := s.names[key]; !ok {
			continue
		}
		for site, weight := range calls {
			all += weight
			if sites[site] {
				right += weight
			}
		}
	}
	return ratio(right, all)
}

// share is the part of have's weight under keys that want has.
func share(have, want map[string]int64) float64 {
	var right, all int64
	for key, weight := range have {
		all += weight
		if _, ok := want[key]; ok {
			right += weight
		}
	}
	return ratio(right, all)
}

func ratio(part, all int64) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// distance compares two distributions, each given with its total weight.
func distance(a map[string]int64, atotal int64, b map[string]int64, btotal int64) float64 {
	var diff, sum float64
	for key := range union(a, b) {
		x, y := ratio(a[key], atotal), ratio(b[key], btotal)
		diff += math.Abs(x - y)
		sum += x + y
	}
	if sum == 0 {
		return 0
	}
	return diff / sum
}

func union(a, b map[string]int64) map[string]bool {
	keys := map[string]bool{}
	for key := range a {
		keys[key] = true
	}
	for key := range b {
		keys[key] = true
	}
	return keys
}

func unique(names []string) []string {
	sorted := slices.Sorted(slices.Values(names))
	return slices.Compact(sorted)
}
