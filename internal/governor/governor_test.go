package governor

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	budget = 0.04 // CPUs: 1 % of four
	window = 10 * time.Second
)

func cpuKind() Kind { return Kind{Name: "cpu", Share: 1, Floor: 1, Ceiling: 99, Start: 19, Unit: "Hz"} }

func newGovernor(t *testing.T, change func(*Config)) *Governor {
	t.Helper()
	c := Config{CPU: budget, Kinds: []Kind{cpuKind()}}
	if change != nil {
		change(&c)
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// cpus is CPU time of a window.
func cpus(f float64) time.Duration { return time.Duration(f * float64(window)) }

// seen is a window in which the kind "cpu" cost a part of the budget, all of it user time but for a fifth.
func seen(part, rate float64) Observation {
	return Observation{Window: window, CPUs: 4, Load: math.NaN(), Kinds: []Spent{spent("cpu", part*budget, rate)}}
}

func spent(name string, cost, rate float64) Spent {
	return Spent{Name: name, BPF: cpus(cost / 5), User: cpus(cost * 4 / 5), Events: 1000, Rate: rate}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Abs(b) }

func TestRateFollowsCost(t *testing.T) {
	tests := map[string]struct {
		part, rate float64 // of the budget that was spent; in force
		lost       uint64
		want       float64
	}{
		"what costs too much is cut at once to three quarters of the budget":                 {part: 3, rate: 40, want: 10},
		"what costs a little too much is cut, too":                                           {part: 1, rate: 40, want: 30},
		"what would cost less than the floor stays at the floor":                             {part: 300, rate: 40, want: 1},
		"nothing changes between six and nine tenths":                                        {part: 0.65, rate: 19, want: 19},
		"nor at the upper end":                                                               {part: 0.89, rate: 19, want: 19},
		"what costs little is raised to what it may cost, where half of the user time stays": {part: 0.5, rate: 19, want: 19 * 0.55 / 0.3},
		"but not to more than twice":                                                         {part: 0.35, rate: 19, want: 38},
		"from far away, half of the way":                                                     {part: 0.75 / 5.8, rate: 19, want: 57},
		"but not to more than eight times":                                                   {part: 0.75 / 1000, rate: 4, want: 32},
		"what costs nothing is raised to twice":                                              {part: 0, rate: 19, want: 38},
		"not above the ceiling":                                                              {part: 0.1, rate: 90, want: 99},
		"what loses events is not raised":                                                    {part: 0.1, rate: 19, lost: 100, want: 19},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGovernor(t, nil)
			g.kinds[0].rate = tt.rate
			o := seen(tt.part, tt.rate)
			o.Kinds[0].Lost = tt.lost
			if d := g.Next(o); !near(d.Kinds[0].Rate, tt.want) {
				t.Errorf("rate %v, want %v; %q", d.Kinds[0].Rate, tt.want, d.Reasons)
			}
		})
	}
}

func TestRateRisesAWindowAfterACut(t *testing.T) {
	g := newGovernor(t, nil)
	cut := g.Next(seen(3, 19)).Kinds[0].Rate
	if d := g.Next(seen(0.1, cut)); d.Kinds[0].Rate != cut {
		t.Errorf("rate %v in the window after the cut to %v", d.Kinds[0].Rate, cut)
	}
	if d := g.Next(seen(0.1, cut)); d.Kinds[0].Rate <= cut {
		t.Errorf("rate %v two windows after the cut to %v", d.Kinds[0].Rate, cut)
	}
}

// What was throttled would have cost something, too: with it the kind is over the budget.
func TestThrottledSamplesCount(t *testing.T) {
	g := newGovernor(t, nil)
	g.kinds[0].rate = 40
	o := seen(0.7, 40)
	o.Kinds[0].Throttled = 500
	if d := g.Next(o); !near(d.Kinds[0].Rate, 40*0.75/1.4) {
		t.Errorf("rate %v", d.Kinds[0].Rate)
	}
}

// The base is taken from the budget at once, and given back slowly.
func TestBaseComesFirst(t *testing.T) {
	g := newGovernor(t, nil)
	o := seen(0.3, 19)
	o.Base = cpus(budget * 0.6)
	d := g.Next(o)
	if got := d.Kinds[0]; !near(got.Allowed, budget*0.4) || got.Rate != 19 {
		t.Errorf("allowed %v at rate %v", got.Allowed, got.Rate)
	}
	if !near(d.Spent, budget*0.9) || d.Budget != budget {
		t.Errorf("spent %v of %v", d.Spent, d.Budget)
	}
	if d := g.Next(seen(0.3, 19)); !near(d.Kinds[0].Allowed, budget*0.7) {
		t.Errorf("allowed %v a window later", d.Kinds[0].Allowed)
	}
	o.Base = cpus(budget * 2)
	if d := g.Next(o); d.Kinds[0].Rate != 1 || !mentions(d, "the agent itself: 2 % of 1 %") {
		t.Errorf("beside a base of twice the budget: %+v", d)
	}
}

func TestNoRateAboveWhatALoadStepPermits(t *testing.T) {
	g := newGovernor(t, nil)
	o := seen(0.1, 19)
	o.Kinds[0].Ticks, o.Kinds[0].TicksAll = cpus(0.01*budget), cpus(0.4*budget) // of the budget at 19 Hz
	d := g.Next(o).Kinds[0]
	want := 19 * ticksMay / 0.4
	if !near(d.Rate, want) || !near(d.Ceiling, want) {
		t.Errorf("rate %v of %v, want %v", d.Rate, d.Ceiling, want)
	}
}

func TestLimitLeavesRoomForTicksHitsAndUserTime(t *testing.T) {
	g := newGovernor(t, nil)
	o := Observation{Window: window, Kinds: []Spent{{Name: "cpu", Rate: 19, Events: 1000, BPF: cpus(0.1 * budget), User: cpus(0.3 * budget),
		Ticks: cpus(0.1 * budget), TicksAll: cpus(0.2 * budget), Hits: cpus(0.1 * budget), HitsAll: cpus(0.15 * budget)}}}
	g.kinds[0].ratio = 3
	d := g.Next(o).Kinds[0]
	if d.Rate != 19 {
		t.Fatalf("rate %v", d.Rate)
	}
	want := (safe - 0.2 - 0.15) * budget / (1 + 3*ratioMargin)
	if got := d.Limit.Seconds(); math.Abs(got-want) > 1e-6 {
		t.Errorf("limit %v s a second, want %v", got, want)
	}
	if spend := 0.2*budget + 0.15*budget + d.Limit.Seconds()*4; spend > budget {
		t.Errorf("at the limit %v of %v are spent", spend, budget)
	}
}

// The ratio is of this window and, half as much, of those before: a part of a window's user time falls into the next one.
func TestRatioOfUserTimeRisesAtOnceAndFallsSlowly(t *testing.T) {
	g := newGovernor(t, nil)
	with := func(bpf, user float64, events uint64) float64 {
		g.Next(Observation{Window: window, Kinds: []Spent{{Name: "cpu", Rate: 19, Events: events, BPF: cpus(bpf / 1000), User: cpus(user / 1000)}}})
		return g.kinds[0].ratio
	}
	for _, step := range []struct {
		bpf, user float64
		events    uint64
		want      float64
	}{{1, 8, 1000, 8}, {1, 2, 1000, (8 + (2+4)/1.5) / 2}, {1000, 20000, 1000, maxRatio}} {
		if got := with(step.bpf, step.user, step.events); math.Abs(got-step.want) > 0.01 {
			t.Errorf("%v: ratio %v", step, got)
		}
	}
	g = newGovernor(t, nil)
	with(100, 300, 1000)
	if got := with(1, 30, 1000); got > 7 {
		t.Errorf("user time of the last window: ratio %v", got)
	}
	g.kinds[0].limit = 1
	if before := g.kinds[0].ratio; with(1, 1000, 10) != before {
		t.Errorf("ten events change the ratio to %v", g.kinds[0].ratio)
	}
}

func twoKinds(c *Config) {
	c.Kinds = append(c.Kinds, Kind{Name: "heap", Share: 1, Floor: 0.01, Ceiling: 1, Start: 0.1})
}

func both(a, b Spent) Observation {
	return Observation{Window: window, CPUs: 4, Load: 0, Kinds: []Spent{a, b}}
}

func TestUnusedSharesAreLent(t *testing.T) {
	tests := map[string]struct {
		o         Observation
		cpu, heap float64 // parts of the budget that they may cost
	}{
		"both use theirs": {both(spent("cpu", budget*0.5, 40), spent("heap", budget*0.5, 0.1)), 0.5, 0.5},
		"one is at its ceiling and costs little": {
			both(spent("cpu", budget*0.5, 40), spent("heap", budget*0.15, 1)), 0.8, 0.2},
		"one costs nothing": {both(spent("cpu", budget*0.5, 40), Spent{Name: "heap"}), 0.95, 0.05},
		"none needs all": {
			both(spent("cpu", budget*0.15, 99), spent("heap", budget*0.15, 1)), 0.5, 0.5},
		"one is off": {Observation{Window: window, Kinds: []Spent{spent("cpu", budget*0.5, 40)}}, 1, 0},
		"all are":    {Observation{Window: window}, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newGovernor(t, twoKinds).Next(tt.o)
			if got := [2]float64{d.Kinds[0].Allowed / budget, d.Kinds[1].Allowed / budget}; !near(got[0]+1, tt.cpu+1) || !near(got[1]+1, tt.heap+1) {
				t.Errorf("may cost %.3f of the budget, want %v and %v", got, tt.cpu, tt.heap)
			}
		})
	}
}

func TestKindThatComesBackBeginsAtItsStart(t *testing.T) {
	g := newGovernor(t, nil)
	for range 3 {
		g.Next(seen(0.1, 0))
	}
	if d := g.Next(Observation{Window: window}); d.Kinds[0].Rate != 19 || d.Kinds[0].Off {
		t.Errorf("%+v", d.Kinds[0])
	}
}

func TestEventSteps(t *testing.T) {
	g := newGovernor(t, func(c *Config) { c.Kinds = []Kind{{Name: "block", Share: 1, Event: true}} })
	for _, step := range []struct{ perSecond, keep float64 }{
		{999, 1}, {1000, 0.2}, {900, 0.2}, {799, 1}, {4999, 0.2}, {5000, 0.05}, {4001, 0.05}, {3999, 0.2}, {1e6, 0.05}, {10, 1},
	} {
		d := g.Next(Observation{Window: window, Kinds: []Spent{{Name: "block", Events: uint64(step.perSecond * window.Seconds())}}})
		if d.Kinds[0].Keep != step.keep {
			t.Errorf("%v events a second: %v are kept, want %v", step.perSecond, d.Kinds[0].Keep, step.keep)
		}
	}
}

func TestSummaryMode(t *testing.T) {
	nan := math.NaN()
	tests := map[string]struct {
		loads []float64
		want  Mode
	}{
		"a busy host at once":         {[]float64{0.71}, Summary},
		"the threshold is not yet it": {[]float64{0.7}, Full},
		"it stays between the two":    {[]float64{0.9, 0.6}, Summary},
		"it ends below the lower":     {[]float64{0.9, 0.54, 0.54, 0.54}, Full},
		"a breath is not its end":     {[]float64{0.9, 0.1, 0.1}, Summary},
		"nor are several":             {[]float64{0.9, 0.1, 0.1, 0.6, 0.1, 0.1}, Summary},
		"full stays between the two":  {[]float64{0.54, 0.69}, Full},
		"unknown changes nothing":     {[]float64{0.9, nan, nan}, Summary},
		"but for long it ends":        {[]float64{0.9, nan, nan, nan}, Full},
		"unknown from the start":      {[]float64{nan}, Full},
		"infinite":                    {[]float64{math.Inf(1)}, Summary},
		"negative is unknown":         {[]float64{-1}, Full},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGovernor(t, nil)
			var d Decision
			for _, load := range tt.loads {
				o := seen(0.7, 19)
				o.Load = load
				d = g.Next(o)
			}
			want := Decision{Mode: Full, Windows: 1}
			if tt.want == Summary {
				want = Decision{Mode: Summary, Windows: summaryWindows, NoKernel: true}
			}
			if got := (Decision{Mode: d.Mode, Windows: d.Windows, NoKernel: d.NoKernel}); !cmp.Equal(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
			if tt.want == Summary && d.Kinds[0].Rate != 1 {
				t.Errorf("rate %v in summary mode", d.Kinds[0].Rate)
			}
		})
	}
}

func TestFullModeReachesHalfOfTheBudgetWithinFiveWindowsOfSummary(t *testing.T) {
	g := newGovernor(t, nil)
	o := seen(1, 19)
	o.Load = 0.9
	rate := g.Next(o).Kinds[0].Rate
	for range 5 {
		o := seen(rate/80, rate) // 80 Hz cost all of the budget
		o.Load = 0
		rate = g.Next(o).Kinds[0].Rate
	}
	if rate < 40 || rate > 80 {
		t.Errorf("rate %v after five windows, where 80 would cost the budget", rate)
	}
}

func TestMemory(t *testing.T) {
	g := newGovernor(t, func(c *Config) {
		twoKinds(c)
		c.Memory = 100 << 20
		c.Kinds[1].Share = 0.5
	})
	var rate float64
	next := func(mib int64) Decision {
		o := both(spent("cpu", budget*0.1, rate), Spent{Name: "heap"})
		o.RSS = mib << 20
		d := g.Next(o)
		rate = d.Kinds[0].Rate
		return d
	}
	steps := []struct {
		mib             int64
		trim, off, less bool // the rate falls
		same            bool // it stays
	}{
		{mib: 50},
		{mib: 86, trim: true, same: true},
		{mib: 80, trim: true, same: true},
		{mib: 74},
		{mib: 101, trim: true, less: true},
		{mib: 101, trim: true, less: true},
		{mib: 101, trim: true, less: true, off: true},
		{mib: 60, off: true},
	}
	for i, s := range steps {
		before := rate
		d := next(s.mib)
		if d.Trim != s.trim || d.Kinds[1].Off != s.off || d.Kinds[0].Off {
			t.Errorf("%d: %+v with %d of 100 MiB", i, d, s.mib)
		}
		if s.less != (rate < before) || s.same && rate != before {
			t.Errorf("%d: rate %v -> %v with %d of 100 MiB", i, before, rate, s.mib)
		}
	}
}

func mentions(d Decision, text string) bool {
	return strings.Contains(strings.Join(d.Reasons, "\n"), text)
}

func TestReasons(t *testing.T) {
	g := newGovernor(t, func(c *Config) {
		c.Kinds = append(c.Kinds, Kind{Name: "allocs", Share: 1, Floor: 1. / (1 << 30), Ceiling: 1. / (64 << 10), Start: 1. / (1 << 20), Unit: "1/B"})
	})
	d := g.Next(both(spent("cpu", budget, 19), spent("allocs", budget, 0)))
	want := []string{"cpu: 1 % of 0.5 %: rate 19 -> 7.1 Hz", "allocs: 1 % of 0.5 %: rate 1 MiB -> 2.7 MiB"}
	if !cmp.Equal(d.Reasons, want) {
		t.Error(cmp.Diff(want, d.Reasons))
	}
	if d := g.Next(both(spent("cpu", budget*0.35, 0), spent("allocs", budget*0.35, 0))); d.Reasons != nil {
		t.Errorf("nothing changes: %q", d.Reasons)
	}
	o := both(spent("cpu", budget*0.35, 0), spent("allocs", budget*0.35, 0))
	o.Load, o.CPUs = 0.8, 0
	if d := g.Next(o); !mentions(d, "load 0.80: summary mode") || !mentions(d, "cpu: 0.014 of 0.02 CPUs: rate 7.1 -> 1 Hz") {
		t.Errorf("%q", d.Reasons)
	}
}

// The first decision, and one about a window that says nothing, change nothing.
func TestWindowsThatSayNothing(t *testing.T) {
	g := newGovernor(t, nil)
	first := g.Next(Observation{})
	if k := first.Kinds[0]; k.Rate != 19 || k.Limit <= 0 || k.Limit.Seconds() > budget || k.Off || first.Windows != 1 {
		t.Errorf("first: %+v", first)
	}
	after := g.Next(seen(0.7, 19))
	for _, w := range []time.Duration{0, -time.Second, time.Millisecond, math.MinInt64} {
		o := seen(100, 19)
		o.Window = w
		if d := g.Next(o); !cmp.Equal(d, after) {
			t.Errorf("a window of %v: %s", w, cmp.Diff(after, d))
		}
	}
}

func TestTimesThatGoBackCountAsNothing(t *testing.T) {
	g := newGovernor(t, nil)
	d := g.Next(Observation{Window: window, Base: -time.Hour, RSS: -1, Kinds: []Spent{{Name: "cpu", Ticks: -1, TicksAll: math.MinInt64, Hits: -time.Hour,
		BPF: -1, User: -time.Hour, Events: math.MaxUint64, Lost: 1, Throttled: math.MaxUint64, Rate: math.NaN()}}})
	if d.Spent != 0 || d.Kinds[0].Rate < 19 {
		t.Errorf("%+v", d)
	}
}

func TestConfigIsChecked(t *testing.T) {
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"no budget":       {func(c *Config) { c.CPU = 0 }, "budget of 0 CPUs"},
		"endless":         {func(c *Config) { c.CPU = math.Inf(1) }, "budget of +Inf CPUs"},
		"not a number":    {func(c *Config) { c.CPU = math.NaN() }, "budget of NaN CPUs"},
		"memory":          {func(c *Config) { c.Memory = -1 }, "budget of -1 bytes"},
		"loads":           {func(c *Config) { c.LoadHigh, c.LoadLow = 0.5, 0.6 }, "loads 0.6 and 0.5"},
		"no kinds":        {func(c *Config) { c.Kinds = nil }, "no kinds"},
		"twice":           {func(c *Config) { c.Kinds = append(c.Kinds, c.Kinds[0]) }, `kind "cpu": twice`},
		"no name":         {func(c *Config) { c.Kinds[0].Name = "" }, "no name"},
		"no share":        {func(c *Config) { c.Kinds[0].Share = 0 }, "share of 0"},
		"no floor":        {func(c *Config) { c.Kinds[0].Floor = 0 }, "rates 0, 19, 99"},
		"start too high":  {func(c *Config) { c.Kinds[0].Start = 100 }, "rates 1, 100, 99"},
		"rates of events": {func(c *Config) { c.Kinds[0] = Kind{Name: "e", Share: 1, Event: true, Start: 1} }, "rates 0, 1, 0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := Config{CPU: budget, Kinds: []Kind{cpuKind()}}
			tt.change(&c)
			if _, err := New(c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
