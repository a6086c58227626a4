package gopclntab

// maxDecode bounds the bytes of pc-value tables that one call of SPDelta or AppendFrames decodes.
// The largest function of a real program needs less than a tenth of it.
const maxDecode = 8 << 20

// A decoder reads varints from [addr, end), piece by piece.
type decoder struct {
	p         *pages
	buf       []byte // what is left of the current piece
	addr, end uint64 // the bytes after buf
}

// varint reads one varint; ok is false at the end of the table and of the budget.
func (d *decoder) varint() (v uint32, ok bool) {
	if len(d.buf) > 0 && d.buf[0] < 0x80 {
		v = uint32(d.buf[0])
		d.buf = d.buf[1:]
		return v, true
	}
	return d.longVarint()
}

// longVarint is varint for more than one byte, or for bytes that are not at hand.
// Like runtime.readvarint it keeps 32 bits; unlike it, it takes 5 bytes at most.
func (d *decoder) longVarint() (v uint32, ok bool) {
	for shift := 0; shift < 35; shift += 7 {
		if len(d.buf) == 0 && !d.next() {
			return 0, false
		}
		b := d.buf[0]
		d.buf = d.buf[1:]
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v, true
		}
	}
	return 0, false
}

// next makes the next piece the current one.
func (d *decoder) next() bool {
	if d.addr >= d.end {
		return false
	}
	b := d.p.at(d.addr)
	b = b[:min(uint64(len(b)), d.end-d.addr)]
	d.buf = b
	d.addr += uint64(len(b))
	return len(b) > 0
}

// A pcRange is [start, end), where a pc-value table has one value.
type pcRange struct {
	start, end uint64
	val        int32
}

// pcvalue returns the value at pc in the pc-value table at offset off of pctab, for the function
// that begins at entry, and around pc where it is the same. ok is false where the table says
// nothing (runtime.pcvalue returns -1). It takes what it decodes, beyond the first page, from
// t.budget.
func (t *Table) pcvalue(off uint32, entry, pc uint64) (r pcRange, ok bool) {
	if off == 0 {
		return pcRange{}, false
	}
	start := t.pctab + uint64(off)
	d := decoder{p: &t.pages, addr: start, end: t.functab}
	val, at := int32(-1), entry
	for {
		if d.addr-start > pageSize {
			t.budget -= int(d.addr - start)
			start = d.addr
		}
		if t.budget <= 0 {
			return pcRange{}, false
		}
		dv, ok := d.varint()
		if !ok || dv == 0 && at != entry {
			return pcRange{}, false
		}
		dpc, ok := d.varint()
		if !ok {
			return pcRange{}, false
		}
		val += int32(-(dv & 1) ^ dv>>1)
		before := at
		at += uint64(dpc) * t.minLC
		if pc < at {
			return pcRange{before, at, val}, true
		}
	}
}

// largest is the largest value in a pc-value table, for the function [entry, end); -1: there is none.
func (t *Table) largest(off uint32, entry, end uint64) int32 {
	if off == 0 {
		return -1
	}
	d := decoder{p: &t.pages, addr: t.pctab + uint64(off), end: t.functab}
	most, val := int32(-1), int32(-1)
	for at := entry; at < end && t.budget > 0; t.budget-- {
		dv, ok1 := d.varint()
		dpc, ok2 := d.varint()
		if !ok1 || !ok2 || dv == 0 && at != entry {
			break
		}
		val += int32(-(dv & 1) ^ dv>>1)
		most = max(most, val)
		at += uint64(dpc) * t.minLC
	}
	return most
}
