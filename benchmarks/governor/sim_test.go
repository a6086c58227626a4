package main

import (
	"fmt"
	"testing"

	"github.com/pprofd/pprofd/internal/governor"
)

func traces(t *testing.T) []trace {
	t.Helper()
	list, err := recorded()
	if err != nil {
		t.Fatal(err)
	}
	return append(synthetic(), list...)
}

// TestBudgetHolds: no window costs more than the budget, and no more than five in a row less than half of it without a reason.
func TestBudgetHolds(t *testing.T) {
	for name, kinds := range map[string][]governor.Kind{"usual": usual(), "all": all()} {
		for _, tr := range traces(t) {
			for _, budget := range []float64{0.0025, 0.005, 0.01, 0.02} {
				t.Run(fmt.Sprintf("%s/%s/%g%%", name, tr.name, 100*budget), func(t *testing.T) {
					for seed := range uint64(24) {
						m := machines()[seed%3]
						s := simulation{trace: &tr, machine: m, budget: budget, window: 10, seed: seed, kinds: kinds}
						s.mustHold(t)
					}
				})
			}
		}
	}
}

func (s *simulation) mustHold(t *testing.T) {
	t.Helper()
	rows, err := s.run()
	if err != nil {
		t.Fatal(err)
	}
	excuse, most := (*row).atCeiling, within
	if len(s.kinds) > len(usual()) { // beside a reserve for traps there is less to rise with
		excuse, most = (*row).highest, within+2
	}
	v := judge(rows, s.budget*s.cpus, excuse)
	if len(v.over) > 0 {
		r := &rows[v.over[0]]
		t.Fatalf("%s, seed %d: %v; the first is %d: %.4g CPUs, %+v, reasons %q", s.machine.name, s.seed, &v, v.over[0], r.spent, r.observed, r.reasons)
	}
	if v.idle > most {
		r := &rows[v.at+most]
		t.Fatalf("%s, seed %d: %v, from %d on: %.4g CPUs, %+v", s.machine.name, s.seed, &v, v.at, r.spent, r.settings)
	}
}
