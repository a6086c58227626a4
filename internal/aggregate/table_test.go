package aggregate

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/objfile"
)

func randomStack(r *rand.Rand, depth, addrs int) Stack {
	s := make(Stack, depth)
	for i := range s {
		s[i] = objfile.Addr{Image: objfile.ImageID(2 + r.IntN(3)), Off: uint64(r.IntN(addrs)) * 4}
	}
	return s
}

// naive is the table's meaning: a Go map by the printed key.
func naive(k Key, s Stack) string { return fmt.Sprint(k, s) }

func contents(t *Table) map[string]Value {
	m := make(map[string]Value)
	for i := range t.entries.n {
		e := t.entries.at(i)
		var s Stack
		for _, n := range t.stacks.numbers(nil, e.stack) {
			s = append(s, t.stacks.addr(n))
		}
		m[naive(e.key, s)] = e.value
	}
	return m
}

func TestCountsEqualThoseOfAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	table, want := New(Limits{}), make(map[string]Value)
	for range 20_000 {
		k := Key{Target: uint32(r.IntN(2)), Kind: uint8(r.IntN(2)), Labels: LabelID(r.IntN(2)), Status: Status(r.IntN(2))}
		s := randomStack(r, r.IntN(4), 40)
		v := r.Int64N(100)
		table.Add(k, s, v)
		n := want[naive(k, s)]
		want[naive(k, s)] = Value{n.Count + 1, n.Sum + v}
	}
	if d := cmp.Diff(want, contents(table)); d != "" {
		t.Error(d)
	}
	if s := table.Stats(); s.Samples != 20_000 || s.Lost != 0 || s.Stacks != len(want) {
		t.Errorf("%+v, want %d stacks", s, len(want))
	}
}

func TestKnownStackDoesNotAllocate(t *testing.T) {
	table, r := New(Limits{}), rand.New(rand.NewPCG(1, 2))
	stack := randomStack(r, 32, 1000)
	list := []Label{{"path", "/a"}, {"method", "GET"}}
	add := func() {
		k := Key{Target: 1, Labels: table.Labels(list, Numbers{Goid: 7, TID: 8})}
		table.Add(k, stack, 10)
	}
	add()
	if n := testing.AllocsPerRun(100, add); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { table.Lost(1, 0, LostStacks, 1, 1) }); n != 0 {
		t.Errorf("%v allocations for a lost sample", n)
	}
}

func TestBeyondLimitsNothingIsLostInSilence(t *testing.T) {
	tests := map[string]struct {
		limits Limits
		reason string
	}{
		"stacks": {Limits{Stacks: 100}, LostStacks},
		"bytes":  {Limits{Bytes: 300 << 10}, LostMemory},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			table, r := New(tt.limits), rand.New(rand.NewPCG(3, 4))
			const adds = 30_000
			for range adds {
				table.Add(Key{Target: 5}, randomStack(r, 20, 1<<30), 7)
			}
			s := table.Stats()
			if s.Samples+s.Lost != adds || s.Lost == 0 || s.Samples == 0 {
				t.Errorf("%d samples, %d lost of %d", s.Samples, s.Lost, adds)
			}
			if s.Bytes > max(tt.limits.Bytes, 1<<20) || tt.limits.Stacks > 0 && s.Stacks > tt.limits.Stacks {
				t.Errorf("beyond the limits: %+v", s)
			}
			want := map[lostKey]Value{{5, 0, tt.reason}: {int64(s.Lost), 7 * int64(s.Lost)}}
			if d := cmp.Diff(want, table.lost, cmp.AllowUnexported(lostKey{})); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestStacksAreShared: what a further process of the same program needs is the counts, not the stacks.
func TestStacksAreShared(t *testing.T) {
	const targets, stacks = 100, 1000
	bytes := map[bool]int{}
	for _, same := range []bool{true, false} {
		table := New(Limits{Bytes: 1 << 30})
		for target := range uint32(targets) {
			seed := uint64(0)
			if !same {
				seed = uint64(target)
			}
			r := rand.New(rand.NewPCG(5, seed))
			for range stacks {
				table.Add(Key{Target: target}, randomStack(r, 20, 1<<20), 1)
			}
		}
		s := table.Stats()
		if s.Stacks != targets*stacks || s.Lost != 0 {
			t.Fatalf("%+v", s)
		}
		bytes[same] = s.Bytes
	}
	if bytes[true] > 60*targets*stacks || bytes[false] < 5*bytes[true] {
		t.Errorf("%d bytes with the same stacks, %d with others", bytes[true], bytes[false])
	}
}

// TestLimitsGrowWithTargets: many processes and CPUs may have more distinct stacks than one, unless a limit was asked for.
func TestLimitsGrowWithTargets(t *testing.T) {
	for name, c := range map[string]struct {
		limits              Limits
		targets, cpus, want int
	}{
		"one":      {Limits{}, 1, 2, defaultStacks + targetStacks + 2*cpuStacks},
		"2,000":    {Limits{}, 2000, 2, defaultStacks + 2000*targetStacks + 2*cpuStacks},
		"256 CPUs": {Limits{}, 1, 256, defaultStacks + targetStacks + 256*cpuStacks},
		"limited":  {Limits{Stacks: 7}, 2000, 256, 7},
	} {
		table := New(c.limits)
		table.Expect(c.targets, c.cpus)
		if table.limits.Stacks != c.want {
			t.Errorf("%s: %d stacks, want %d", name, table.limits.Stacks, c.want)
		}
	}
}

func TestDeepStackIsCutAndMarked(t *testing.T) {
	table := New(Limits{})
	table.Add(Key{}, randomStack(rand.New(rand.NewPCG(1, 1)), 10_000, 100), 1)
	if e := table.entries.at(0); table.stacks.list.at(0).n != maxDepth || e.key.Status != Truncated || table.Stats().Truncated != 1 {
		t.Errorf("%+v, %+v", e, table.Stats())
	}
}

func TestResetForgets(t *testing.T) {
	table := New(Limits{})
	id := table.Labels([]Label{{"a", "b"}}, Numbers{})
	table.Add(Key{Labels: id}, Stack{{Image: 2, Off: 1}}, 1)
	table.Lost(0, 0, "x", 1, 1)
	table.Reset()
	if len(contents(table)) != 0 || len(table.lost) != 0 || table.labels.get(id).list != nil && len(table.labels.sets) > 2 {
		t.Error("something is left")
	}
	if s := table.Stats(); s.Samples != 1 || s.Lost != 1 || s.Stacks != 0 {
		t.Errorf("%+v", s)
	}
}

func TestLabelSets(t *testing.T) {
	table := New(Limits{Labels: 3})
	a := table.Labels([]Label{{"x", "1"}, {"y", "2"}}, Numbers{})
	if b := table.Labels([]Label{{"y", "2"}, {"x", "1"}}, Numbers{}); a != b {
		t.Error("order matters")
	}
	if b := table.Labels([]Label{{"x", "1"}, {"y", "2"}}, Numbers{Goid: 1}); a == b {
		t.Error("goid does not matter")
	}
	if table.Labels(nil, Numbers{}) != 0 {
		t.Error("the empty set is not 0")
	}
	buf := []byte("key")
	c := table.Labels([]Label{{string(buf), "v"}}, Numbers{})
	if c == overflow || c == a {
		t.Errorf("third set is %d", c)
	}
	if d := table.Labels([]Label{{"fourth", "v"}}, Numbers{}); d != overflow {
		t.Errorf("beyond the limit: %d", d)
	}
	if table.Labels([]Label{{"x", "1"}, {"y", "2"}}, Numbers{}) != a {
		t.Error("a known set is unknown once the table is full")
	}
	big := New(Limits{})
	for i := range 10_000 {
		big.Labels([]Label{{fmt.Sprint(i), strings.Repeat("v", 4000)}}, Numbers{})
	}
	if big.labels.bytes > maxSetBytes {
		t.Errorf("%d bytes of labels", big.labels.bytes)
	}
}

// With a good hash 2^16 addresses that differ in few bits fall into distinct slots nearly as often as random ones.
func TestHashSpreadsAddresses(t *testing.T) {
	for name, shift := range map[string]int{"low bits": 0, "page numbers": 12, "high bits": 48} {
		h := newHasher()
		used := make(map[uint64]bool)
		for i := range uint64(1 << 16) {
			used[h.one(objfile.Addr{Image: 2, Off: i << shift})&(1<<16-1)] = true
		}
		if share := float64(len(used)) / (1 << 16); share < 0.55 { // random: 1-1/e = 0.632
			t.Errorf("%s: %.3f of the slots used", name, share)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, want := New(Limits{}), make(map[string]Value)
		for len(data) >= 4 {
			k := Key{Target: uint32(data[0] & 3), Kind: data[1] & 1, Status: Status(data[2] & 3)}
			var s Stack
			n := min(int(data[3]&7), len(data)/4-1)
			data = data[4:]
			for range n {
				v := binary.LittleEndian.Uint32(data)
				s, data = append(s, objfile.Addr{Image: objfile.ImageID(v & 7), Off: uint64(v>>3) << (v & 31)}), data[4:]
			}
			table.Add(k, s, int64(len(data)))
			old := want[naive(k, s)]
			want[naive(k, s)] = Value{old.Count + 1, old.Sum + int64(len(data))}
		}
		if d := cmp.Diff(want, contents(table)); d != "" {
			t.Error(d)
		}
		checkBuild(t, table)
	})
}

func BenchmarkAddKnownStack32(b *testing.B) {
	table, r := New(Limits{}), rand.New(rand.NewPCG(1, 2))
	stacks := make([]Stack, 512)
	for i := range stacks {
		stacks[i] = randomStack(r, 32, 5000)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Add(Key{Target: 1}, stacks[i&511], 10)
	}
}
