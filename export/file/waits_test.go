package file

import (
	"bytes"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
)

// waiting is a profile of goroutines: 8 that read from a connection, some that wait for a lock through an inlined call, 2
// that run in a function of the runtime, and one of which nothing but the runtime is known.
func waiting(typ string, lock int64) *profile.Profile {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: typ, Unit: "count"}}, PeriodType: &profile.ValueType{Type: typ, Unit: "count"}, Period: 1}
	function := func(name string) *profile.Function {
		f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name}
		p.Function = append(p.Function, f)
		return f
	}
	at := func(names ...string) *profile.Location {
		l := &profile.Location{ID: uint64(len(p.Location) + 1)}
		for _, name := range names {
			l.Line = append(l.Line, profile.Line{Function: function(name)})
		}
		p.Location = append(p.Location, l)
		return l
	}
	park := at("runtime.gopark")
	add := func(n int64, state string, stack ...*profile.Location) {
		p.Sample = append(p.Sample, &profile.Sample{Location: stack, Value: []int64{n}, Label: map[string][]string{"state": {state}}})
	}
	add(8, "waiting", park, at("internal/poll.(*FD).Read"), at("net.(*conn).Read"), at("bufio.(*Reader).fill"), at("net/http.(*conn).serve"))
	add(lock, "waiting", park, at("sync.(*Mutex).Lock", "main.(*store).lock", "main.(*store).get"), at("main.main"))
	add(2, "running", at("runtime.memmove"), at("main.copies"))
	add(1, "waiting", park)
	return p
}

// TestTablesSayWhoWaits: what all wait in says nothing.
func TestTablesSayWhoWaits(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTop(&b, waiting("goroutine", 5), 0); err != nil {
		t.Fatal(err)
	}
	want := `      flat  flat%   sum%        cum   cum%
         8 50.00% 50.00%          8 50.00%  net/http.(*conn).serve
         5 31.25% 81.25%          5 31.25%  main.(*store).lock (inline)
         2 12.50% 93.75%          2 12.50%  runtime.memmove
         1  6.25%   100%          1  6.25%  runtime.gopark
         0     0%   100%          5 31.25%  main.(*store).get
         0     0%   100%          2 12.50%  main.copies
         0     0%   100%          5 31.25%  main.main
`
	if d := gocmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	if err := WriteDiff(&b, waiting("wall", 5), waiting("wall", 505), 0); err != nil {
		t.Fatal(err)
	}
	want = `    before      after     change        % cum change
         5        505       +500     x101       +500  main.(*store).lock
        16        516       +500 +3125.0%       +500  (all)
`
	if d := gocmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

// TestTablesOfOtherProfiles are those of go tool pprof.
func TestTablesOfOtherProfiles(t *testing.T) {
	p := waiting("cpu", 5)
	if whoWaits(p) != p {
		t.Error("a CPU profile was changed")
	}
	if p := waiting("delay", 5); whoWaits(p) == p || len(p.Sample[0].Location) != 5 || len(p.Sample[1].Location[1].Line) != 3 {
		t.Error("it is the profile itself that was changed, or nothing was")
	}
}
