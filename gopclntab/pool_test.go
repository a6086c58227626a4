package gopclntab

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestPool: tables that share a pool too small for them read what is there, and hold no more than the pool has.
func TestPool(t *testing.T) {
	const size, tables, poolPages = 1 << 20, 5, 16
	r := rand.New(rand.NewPCG(1, 2))
	pool := NewPool(poolPages)
	var all [tables]*Table
	var images [tables][]byte
	for i := range all {
		images[i] = make([]byte, size)
		for j := range images[i] {
			images[i][j] = byte(r.Uint32())
		}
		all[i] = &Table{pages: pages{r: bytes.NewReader(images[i])}}
		all[i].Share(pool)
	}
	for range 20_000 {
		i, addr := r.IntN(tables), r.Uint64N(size-64)
		got := make([]byte, 1+r.IntN(64))
		if !all[i].pages.read(got, addr) || !bytes.Equal(got, images[i][addr:addr+uint64(len(got))]) {
			t.Fatalf("table %d at %#x: wrong bytes", i, addr)
		}
	}
	held := 0
	for _, table := range all {
		held += table.pages.held()
	}
	if held != poolPages || len(pool.held) != poolPages {
		t.Errorf("%d pages are held, %d of the pool, of %d", held, len(pool.held), poolPages)
	}
	for _, table := range all {
		table.Close()
	}
	if len(pool.held) != 0 {
		t.Errorf("%d pages after Close", len(pool.held))
	}
}

// held counts the pages with memory.
func (p *pages) held() (n int) {
	for i := range p.sets {
		for j := range p.sets[i] {
			if p.sets[i][j].data != nil {
				n++
			}
		}
	}
	return n
}
