package objfile

import (
	"errors"
	"io"
)

const (
	pageSize  = 4 << 10
	pageSlots = 16 // a power of two; 64 KiB for each file at most
	// ownPages is what somebody reads at once who has a cache: gopclntab, by its pages.
	ownPages = 1 << 10
)

// pageCache reads small pieces through a few cached pages, and large ones past them.
type pageCache struct {
	r     *meter
	pages [pageSlots]page
}

// page is the part of r at no*pageSize; data is shorter at the end of r and nil where nothing is cached.
type page struct {
	no   int64
	data []byte
	buf  []byte
}

func newPageCache(r *meter) *pageCache { return &pageCache{r: r} }

// ReadAt implements io.ReaderAt.
func (c *pageCache) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > 1<<62 {
		return 0, io.EOF
	}
	if len(p) >= ownPages {
		return readFullAt(c.r, p, off)
	}
	n := 0
	for n < len(p) {
		pg, err := c.page((off + int64(n)) / pageSize)
		if err != nil {
			return n, err
		}
		start := (off + int64(n)) % pageSize
		if start >= int64(len(pg)) {
			return n, io.EOF
		}
		n += copy(p[n:], pg[start:])
	}
	return n, nil
}

func (c *pageCache) page(no int64) ([]byte, error) {
	pg := &c.pages[no%pageSlots]
	if pg.data != nil && pg.no == no {
		return pg.data, nil
	}
	if pg.buf == nil {
		pg.buf = make([]byte, pageSize)
	}
	pg.data = nil
	n, err := readFullAt(c.r, pg.buf, no*pageSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	pg.no, pg.data = no, pg.buf[:n]
	return pg.data, nil
}

// drop forgets all pages.
func (c *pageCache) drop() { c.pages = [pageSlots]page{} }

// readFullAt ignores an error that comes with all the data.
func readFullAt(r io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return n, err
}
