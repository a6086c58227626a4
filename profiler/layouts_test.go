package profiler

import (
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestLayoutsAreFoundOnce: processes of one program share what was found in it, and know as much.
func TestLayoutsAreFoundOnce(t *testing.T) {
	needs.BPF(t)
	p, _ := start(t, Config{})
	path := testprog.Build(t, "spin", testprog.Options{})
	for range 3 {
		proc := testprog.Start(t, path, "-threads", "1", "-seconds", "60")
		if err := p.Add(proc.PID); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.layouts) != 1 {
		t.Errorf("%d layouts of one program", len(p.layouts))
	}
	for _, target := range p.all {
		if !target.known || len(target.layout.Funcs) == 0 {
			t.Errorf("process %d: %+v", target.pid, target.layout)
		}
	}
}
