package goruntime

// kind says what a register or stack slot is known to hold while code is read.
type kind uint8

const (
	unknown   kind = iota
	isG            // *runtime.g
	isM            // *runtime.m
	isConst        // the constant n
	isGOT          // the word at link-time address n
	isAddr         // the link-time address n
	isSP           // derived from the stack pointer
	isFP           // the frame pointer
	isRetAddr      // the function's return address
	isGField       // the field at offset n of a g
	isMField       // the field at offset n of an m
	isArg          // the function's first argument
	isTP           // the thread pointer (arm64)
)

// value is a kind with its number.
type value struct {
	kind kind
	n    uint64
}

// Bounds on what code may make us believe.
const (
	maxOffset = 1 << 16 // of a field
	maxCode   = 8 << 10 // bytes of one function
	maxCalls  = 64      // of one function
	maxSlots  = 64      // stack slots that are followed
)

// call is one CALL: the address after it and, where known, its target.
type call struct{ ret, target uint64 }

// facts are what the code of one or more functions has told.
type facts struct {
	Offsets
	TLS     int64
	HasTLS  bool
	TLSSlot uint64
	cmps    []uint32 // offsets in m of the fields that g was compared with, in order
	calls   []call
	refs    []uint64 // addresses that are read or taken relative to the pc, in order, distinct
}

// machine follows a handful of values through straight-line code: enough for the hand-written assembly
// of the runtime, in which no value of interest depends on the path.
type machine struct {
	facts
	regs  [33]value
	slots map[int64]value // by offset from SP; forgotten when SP moves
	inG   bool            // whether an unknown field of g may be taken for g.m
	done  bool
}

// load is the value of the word at base+disp.
func (m *machine) load(base value, disp int64) value {
	if base.kind == isSP && disp == -8 { // *(address of the arguments - 8)
		return value{kind: isRetAddr}
	}
	if disp < 0 || disp >= maxOffset {
		return value{}
	}
	switch base.kind {
	case isG:
		return m.loadG(uint32(disp))
	case isM:
		if disp == 0 || uint32(disp) == m.MCurg {
			return value{kind: isG} // m.g0 is at 0 in all versions
		}
		return value{isMField, uint64(disp)}
	}
	return value{}
}

// loadG: the first field that the anchor function loads from g is g.m.
func (m *machine) loadG(disp uint32) value {
	if m.GM == 0 && m.inG && disp != 0 {
		m.GM = disp
	}
	if disp == m.GM {
		return value{kind: isM}
	}
	return value{isGField, uint64(disp)}
}

// store sees src written to base+disp. A field keeps the first offset that was seen for it.
func (m *machine) store(base value, disp int64, src value) {
	if disp <= 0 || disp >= maxOffset {
		return
	}
	var to *uint32
	switch [2]kind{base.kind, src.kind} {
	case [2]kind{isG, isFP}:
		to = &m.GSchedBP
	case [2]kind{isG, isSP}:
		to = &m.GSchedSP
	case [2]kind{isG, isAddr}:
		to = &m.GSchedPC
	case [2]kind{isG, isArg}:
		to = &m.GLabels
	case [2]kind{isM, isRetAddr}:
		to = &m.MVDSOPC
	case [2]kind{isM, isSP}:
		to = &m.MVDSOSP
	default:
		return
	}
	if *to == 0 {
		*to = uint32(disp)
	}
}

// setSlot remembers a spilled value.
func (m *machine) setSlot(disp int64, v value) {
	if m.slots == nil {
		m.slots = make(map[int64]value)
	}
	if len(m.slots) < maxSlots {
		m.slots[disp] = v
	}
}

// compare sees a and b compared.
func (m *machine) compare(a, b value) {
	if b.kind == isG {
		a, b = b, a
	}
	if a.kind == isG && b.kind == isMField && len(m.cmps) < maxCalls {
		m.cmps = append(m.cmps, uint32(b.n))
	}
}

// switchStack sees v become the stack pointer.
func (m *machine) switchStack(v value) {
	clear(m.slots)
	if v.kind == isGField && m.GSchedSP == 0 {
		m.GSchedSP = uint32(v.n)
	}
}

// setTLS sees g loaded from the thread pointer plus off.
func (m *machine) setTLS(off value) value {
	if !m.HasTLS && m.TLSSlot == 0 {
		switch off.kind {
		case isConst:
			m.TLS, m.HasTLS = int64(off.n), true
		case isGOT:
			m.TLSSlot = off.n
		}
	}
	return value{kind: isG}
}

// addCall records a call.
func (m *machine) addCall(ret, target uint64) {
	if len(m.calls) < maxCalls {
		m.calls = append(m.calls, call{ret, target})
	}
}

// addRef records a pc-relative address.
func (m *machine) addRef(addr uint64) {
	if len(m.refs) >= maxCalls {
		return
	}
	for _, r := range m.refs {
		if r == addr {
			return
		}
	}
	m.refs = append(m.refs, addr)
}
