package main

import (
	"context"

	"github.com/pprofd/pprofd/benchmarks/agents"
	"github.com/pprofd/pprofd/benchmarks/board"
)

const interruptPairs = 3 // for each pair of throughput

// interrupt measures what a perf event's interrupt takes from its CPU.
func (b *bench) interrupt(context.Context) error {
	list, err := agents.InterruptTimes(interruptPairs * b.pairs)
	for _, ns := range list {
		b.report.Add("Interrupt", 1, board.Value{V: ns, Unit: "ns/interrupt"})
	}
	return err
}
