package goruntime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrUnverified is wrapped by the errors of Verify: labels and goroutine ids must not be used.
var ErrUnverified = errors.New("the runtime's layout does not match the process")

// Bounds of what Verify reads and believes.
const (
	verifyGs     = 16
	verifyTries  = 20      // for each g: on a busy process one in six fails
	maxGs        = 1 << 32 // goroutines of one process
	maxTID       = 1 << 22 // PID_MAX_LIMIT, include/linux/threads.h
	maxLabels    = 1 << 16 // of one goroutine
	maxLabelSize = 1 << 20
)

// ResolveTLS reads TLS from the GOT of a shared object, where there is one (TLSSlot).
// mem is the process's memory, bias its run-time minus link-time addresses.
func (l *Layout) ResolveTLS(mem io.ReaderAt, bias uint64) error {
	if l.TLSSlot == 0 {
		return nil
	}
	var b [8]byte
	if err := readFull(mem, l.TLSSlot+bias, b[:]); err != nil {
		return fmt.Errorf("TLS slot of g: %w", err)
	}
	const reach = 1 << 24 // a thread's static TLS block is a few pages
	off := int64(binary.LittleEndian.Uint64(b[:]))
	if off == 0 || off <= -reach || off >= reach {
		return fmt.Errorf("TLS slot of g: implausible offset %#x", off)
	}
	l.TLS, l.HasTLS = off, true
	return nil
}

// Verify checks the offsets against the live process in a few dozen small reads: mem is the process's
// memory, bias its run-time minus link-time addresses. The error wraps ErrUnverified and says what is wrong.
// The runtime must have started: right after exec there is nothing to look at, and the error says so.
// Success clears l.Unproven.
func (l *Layout) Verify(mem io.ReaderAt, bias uint64) error {
	v := verifier{l: l, mem: mem, bias: bias}
	if err := v.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnverified, err)
	}
	l.Unproven = false
	return nil
}

// verifier is one run of Verify.
type verifier struct {
	l    *Layout
	mem  io.ReaderAt
	bias uint64
	err  error // of the first read that failed
}

// word reads a word; after an error it gives 0 and v.err stays.
func (v *verifier) word(addr uint64) uint64 {
	var b [8]byte
	if v.err == nil {
		v.err = readFull(v.mem, addr, b[:])
	}
	return binary.LittleEndian.Uint64(b[:])
}

// field reads the word at a field of the struct at base.
func (v *verifier) field(base uint64, off uint32) uint64 { return v.word(base + uint64(off)) }

func (v *verifier) check() error {
	if v.l.GGoid == 0 || v.l.GAtomicStatus == 0 {
		return errors.New("the offset of g.goid or g.atomicstatus is unknown")
	}
	gs, err := v.goroutines()
	if err != nil {
		return err
	}
	seen := make(map[uint64]bool)
	for i, addr := range gs {
		goid, err := v.tryG(addr)
		if err != nil {
			return fmt.Errorf("goroutine %d of %d: %w", i, len(gs), err)
		}
		if goid != 0 && seen[goid] {
			return fmt.Errorf("two goroutines have the id %d", goid)
		}
		seen[goid] = true
	}
	return v.checkM0()
}

// goroutines lists the first gs of runtime.allgs.
func (v *verifier) goroutines() ([]uint64, error) {
	if v.l.Globals.AllGLen == 0 || v.l.Globals.AllGPtr == 0 {
		return nil, errors.New("runtime.allgs was not found")
	}
	n := v.word(v.l.Globals.AllGLen + v.bias)
	array := v.word(v.l.Globals.AllGPtr + v.bias)
	if v.err != nil {
		return nil, fmt.Errorf("runtime.allgs: %w", v.err)
	}
	if n < 2 || n > maxGs || array == 0 || array%8 != 0 { // runtime.main starts others at once
		return nil, fmt.Errorf("runtime.allgs has %d goroutines at %#x", n, array)
	}
	gs := make([]uint64, min(n, verifyGs))
	for i := range gs {
		gs[i] = v.word(array + 8*uint64(i))
	}
	return gs, v.err
}

// Values of g.atomicstatus, runtime/runtime2.go, Go 1.18 to 1.27.
const (
	gRunnable  = 1
	gRunning   = 2
	gSyscall   = 3
	gWaiting   = 4
	gDead      = 6
	gCopystack = 8
	gDeadExtra = 11     // Go 1.26 and newer
	gScan      = 0x1000 // flag
)

// gImage is a copy of a g, taken by one read: the process runs on meanwhile.
type gImage struct {
	addr   uint64
	bytes  []byte
	status uint32
}

// at is the word at a field; unknown fields are 0.
func (g gImage) at(off uint32) uint64 {
	if off == 0 {
		return 0
	}
	return binary.LittleEndian.Uint64(g.bytes[off:])
}

// readG copies the part of a g that Offsets knows.
func (v *verifier) readG(addr uint64) (gImage, error) {
	o := &v.l.Offsets
	size := max(8, o.GM, o.GSchedSP, o.GGoid, o.GLabels, o.GAtomicStatus) + 8
	if size > maxOffset {
		return gImage{}, fmt.Errorf("the offsets reach %d bytes into a g", size)
	}
	g := gImage{addr: addr, bytes: make([]byte, size)}
	if addr == 0 || addr%8 != 0 {
		return g, fmt.Errorf("misplaced at %#x", addr)
	}
	if err := readFull(v.mem, addr, g.bytes); err != nil {
		return g, err
	}
	g.status = uint32(g.at(o.GAtomicStatus)) &^ gScan
	return g, nil
}

// tryG checks one g and returns its id (0 for one that was never used). A g may change between
// the reads of it and of its m: it must pass once.
func (v *verifier) tryG(addr uint64) (goid uint64, err error) {
	for range verifyTries {
		v.err = nil
		var g gImage
		if g, err = v.readG(addr); err != nil {
			return 0, err
		}
		if err = errors.Join(v.checkG(g), v.err); err == nil {
			return g.at(v.l.GGoid), nil
		}
	}
	return 0, err
}

// dead: not in use; its stack, id and labels mean nothing.
func (g gImage) dead() bool { return g.status == gDead || g.status == gDeadExtra }

// plausible: a g in runtime.allgs is past idle (0); 5 and 7 have not been used since Go 1.4.
func (g gImage) plausible() bool {
	return g.status >= gRunnable && g.status <= gWaiting || g.dead() || g.status >= gCopystack && g.status <= gDeadExtra
}

// checkG checks one g.
func (v *verifier) checkG(g gImage) error {
	if !g.plausible() {
		return fmt.Errorf("g.atomicstatus is %#x", g.status)
	}
	goid := g.at(v.l.GGoid)
	if goid >= maxGs || goid == 0 && !g.dead() {
		return fmt.Errorf("g.goid is %#x", goid)
	}
	if g.dead() {
		return nil
	}
	if err := v.checkStack(g); err != nil {
		return err
	}
	if err := v.checkGM(g); err != nil {
		return err
	}
	return v.checkLabels(g.at(v.l.GLabels))
}

// checkStack: a parked goroutine's saved SP lies on its stack.
func (v *verifier) checkStack(g gImage) error {
	lo, hi := binary.LittleEndian.Uint64(g.bytes), g.at(8)
	if lo >= hi {
		return fmt.Errorf("its stack is %#x-%#x", lo, hi)
	}
	sp := g.at(v.l.GSchedSP)
	parked := g.status == gRunnable || g.status == gWaiting
	if parked && v.l.GSchedSP != 0 && (sp <= lo || sp > hi) {
		return fmt.Errorf("g.sched.sp %#x is outside its stack %#x-%#x", sp, lo, hi)
	}
	return nil
}

// checkGM: the m of a goroutine that runs or is in a system call points back at it.
func (v *verifier) checkGM(g gImage) error {
	m := g.at(v.l.GM)
	if m == 0 {
		return nil
	}
	if m%8 != 0 {
		return fmt.Errorf("g.m is %#x", m)
	}
	if g0 := v.word(m); v.field(g0, v.l.GM) != m {
		return errors.New("g.m.g0.m is not g.m")
	}
	if g.status != gRunning && g.status != gSyscall || v.l.MCurg == 0 {
		return nil
	}
	if curg := v.field(m, v.l.MCurg); curg != g.addr {
		return fmt.Errorf("g.m.curg is %#x, not g", curg)
	}
	return v.checkTID(m)
}

// checkTID: a thread id, in whichever PID namespace.
func (v *verifier) checkTID(m uint64) error {
	if v.l.MProcid == 0 {
		return nil
	}
	if tid := v.field(m, v.l.MProcid); tid == 0 || tid >= maxTID {
		return fmt.Errorf("m.procid is %#x", tid)
	}
	return nil
}

// checkM0 checks the m of the main thread, where it is known: m0.g0.m is m0.
func (v *verifier) checkM0() error {
	if v.l.Globals.M0 == 0 || v.l.GM == 0 {
		return nil
	}
	m0 := v.l.Globals.M0 + v.bias
	g0 := v.word(m0)
	if m := v.field(g0, v.l.GM); v.err == nil && m != m0 {
		return fmt.Errorf("m0.g0.m is %#x, not m0", m)
	}
	if v.err != nil {
		return fmt.Errorf("m0: %w", v.err)
	}
	return v.checkTID(m0)
}

// checkLabels checks what g.labels points at.
func (v *verifier) checkLabels(p uint64) error {
	if p == 0 {
		return nil
	}
	switch v.l.Labels {
	case LabelsSlice:
		return v.checkLabelSlice(p)
	case LabelsMap:
		return v.checkLabelMap(p)
	}
	return nil
}

// checkLabelSlice: {ptr, len, cap} of {key string, value string} (runtime/pprof/label.go, Go 1.24).
func (v *verifier) checkLabelSlice(p uint64) error {
	first, n, capacity := v.word(p), v.word(p+8), v.word(p+16)
	if v.err != nil || n > capacity || capacity > maxLabels || n > 0 && first == 0 {
		return fmt.Errorf("g.labels %#x holds no labels", p)
	}
	if n == 0 {
		return nil
	}
	return v.checkString(first)
}

// checkLabelMap: map[string]string (runtime/map.go until Go 1.23: count at 0, B at 9, buckets at 16).
func (v *verifier) checkLabelMap(p uint64) error {
	hmap := v.word(p)
	if v.err == nil && hmap == 0 {
		return nil
	}
	count, b, buckets := v.word(hmap), v.word(hmap+8)>>8&0xFF, v.word(hmap+16)
	if v.err != nil || count > maxLabels || b > 16 || count > 0 && buckets == 0 {
		return fmt.Errorf("g.labels %#x holds no map", p)
	}
	return nil
}

// checkString checks the string header at p.
func (v *verifier) checkString(p uint64) error {
	data, n := v.word(p), v.word(p+8)
	if v.err != nil || n > maxLabelSize || n > 0 && data == 0 {
		return fmt.Errorf("g.labels: no string at %#x", p)
	}
	return nil
}

// readFull reads len(b) bytes at addr.
func readFull(mem io.ReaderAt, addr uint64, b []byte) error {
	if int64(addr) < 0 {
		return fmt.Errorf("address %#x is not in user space", addr)
	}
	if n, err := mem.ReadAt(b, int64(addr)); n < len(b) {
		return fmt.Errorf("read %#x: %w", addr, err)
	}
	return nil
}
