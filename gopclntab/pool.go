package gopclntab

// Pool bounds the cached pages of all tables that share it: a profiler of hundreds of programs reads a little of each, and
// most of them at the beginning only. It and its tables belong to one goroutine at a time.
type Pool struct {
	max  int
	held []*page // round robin; each has data
	next int     // whose data is taken next
}

// NewPool returns a pool of so many pages of 1 KiB, of which each table has 256 at most.
func NewPool(pages int) *Pool { return &Pool{max: max(pages, 1)} }

// Share makes t cache its pages in p, from now on.
func (t *Table) Share(p *Pool) {
	t.pages.forget()
	t.pages.pool = p
}

// Close gives the pages back. The table must not be used any more.
func (t *Table) Close() {
	if t.pages.pool != nil {
		t.pages.pool.drop(&t.pages)
	}
	t.pages.forget()
}

// give makes room for a page: new room, or that of the page which has had it for longest.
func (p *Pool) give(pg *page) {
	if len(p.held) < p.max {
		pg.data = new([pageSize]byte)
		p.held = append(p.held, pg)
		return
	}
	loser := p.held[p.next]
	pg.data = loser.data
	*loser = page{}
	p.held[p.next] = pg
	p.next = (p.next + 1) % p.max
}

// drop takes back all that a table has.
func (p *Pool) drop(of *pages) {
	kept := p.held[:0]
	for _, pg := range p.held {
		if !of.has(pg) {
			kept = append(kept, pg)
		}
	}
	clear(p.held[len(kept):])
	p.held = kept
	p.next = 0
}

func (p *pages) has(pg *page) bool {
	for i := range p.sets {
		for j := range p.sets[i] {
			if &p.sets[i][j] == pg {
				return true
			}
		}
	}
	return false
}

func (p *pages) forget() {
	p.last = nil
	clear(p.sets[:])
}
