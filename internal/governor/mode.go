package governor

const (
	summaryWindows = 6 // that one in summary mode is as long as
	unknownLoads   = 3 // in a row end summary mode
	calmWindows    = 3 // the same of low loads: a busy machine breathes now and then
)

// load chooses the mode.
func (g *Governor) load(load float64, d *Decision) {
	before := g.mode
	g.calm++
	if !(load >= 0 && load < g.LoadLow) { // NaN and less are unknown
		g.calm = 0
	}
	switch {
	case load > g.LoadHigh:
		g.mode = Summary
	case g.calm >= calmWindows:
		g.mode = Full
	}
	g.unknown++
	if load >= 0 { // not NaN
		g.unknown = 0
	}
	if g.unknown >= unknownLoads {
		g.mode = Full
	}
	if g.mode != before {
		d.reason("load %.2f: %v mode", load, g.mode)
	}
}

const (
	memoryHigh, memoryLow = 0.85, 0.75 // of the budget: between them what is, stays
	memoryPatience        = 3          // windows beyond the budget, then a kind goes
	memoryCut             = 0.5        // of the rates, in each window beyond the budget
)

// memory is the state of the memory budget.
type memory struct {
	short bool // give back what can be
	over  int  // windows in a row beyond the budget
}

// remember compares RSS with the budget. Beyond it rates fall, and in the end the kind with the smallest share is off, except
// the last one.
func (g *Governor) remember(rss int64, d *Decision) {
	if g.Memory == 0 || rss <= 0 {
		g.memory.over = 0
		return
	}
	m, before := &g.memory, g.memory.short
	used := float64(rss) / float64(g.Memory)
	m.short = used > memoryHigh || m.short && used > memoryLow
	if m.short != before {
		d.reason("memory: %d of %d MiB%s", rss>>20, g.Memory>>20, map[bool]string{true: ": to be trimmed"}[m.short])
	}
	if used <= 1 {
		m.over = 0
		return
	}
	if m.over++; m.over < memoryPatience {
		return
	}
	if k := g.smallest(); k != nil {
		k.breaker.trip()
		d.reason("%s: off for %d windows: memory, %d of %d MiB", k.Name, k.breaker.wait, rss>>20, g.Memory>>20)
		m.over = 1
	}
}

// smallest is the kind with the smallest share that runs beside others, the last of several; nil: there is one at most.
func (g *Governor) smallest() (found *kind) {
	n := 0
	for _, k := range g.kinds {
		if !k.runs() {
			continue
		}
		if n++; found == nil || k.Share <= found.Share {
			found = k
		}
	}
	if n < 2 {
		return nil
	}
	return found
}
