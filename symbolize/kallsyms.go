package symbolize

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	maxKallsyms   = 128 << 20 // bytes of /proc/kallsyms that are read; a large kernel has 15 MB
	maxBeforeText = 1 << 20   // bytes of it before _text: on x86 before Linux 6.15 variables come first; hidden addresses have none
	maxKernelFunc = 1 << 20   // an address further from the symbol before it lies in a gap between modules
	kallsymsLine  = 4096      // KSYM_NAME_LEN is 512 (include/linux/kallsyms.h, Linux 6.1 and newer)
)

// errRestricted: the kernel prints zeros instead of addresses (kernel/kallsyms.c: kallsyms_show_value).
var errRestricted = errors.New("kernel addresses are hidden by kernel.kptr_restrict")

// kernelSymbols holds the names of those kernel addresses that were asked for, and of no others:
// the whole of kallsyms would cost 10 MB and more.
type kernelSymbols struct {
	frames map[uint64]Frame
	text   uint64 // address of _text; 0: not known
}

func (k *kernelSymbols) known(addr uint64) bool {
	_, ok := k.frames[addr]
	return ok
}

func (k *kernelSymbols) frame(addr uint64) Frame { return k.frames[addr] }

// miss records addresses that cannot be named. They all become "[kernel]": without _text an offset
// would be the absolute address, which is what kptr_restrict hides.
func (k *kernelSymbols) miss(wanted []uint64) {
	for _, addr := range wanted {
		k.set(addr, Frame{Func: "[kernel]", SystemName: "[kernel]", Kind: Kernel})
	}
}

func (k *kernelSymbols) set(addr uint64, f Frame) {
	if k.frames == nil {
		k.frames = make(map[uint64]Frame)
	}
	k.frames[addr] = f
}

// ask names the wanted addresses by what the kernel says of each. It reports whether it could.
func (k *kernelSymbols) ask(names func([]uint64) ([]string, error), wanted []uint64) bool {
	texts, err := names(wanted)
	if err != nil || len(texts) != len(wanted) {
		return false
	}
	symbols := make([]*kernelSymbol, len(wanted))
	for i, text := range texts {
		var ok bool
		if symbols[i], ok = parseSymbol(wanted[i], text); !ok {
			return false
		}
	}
	for i, addr := range wanted {
		k.set(addr, k.named(addr, symbols[i]))
	}
	return true
}

// parseSymbol reads "name+0x10/0x20 [module]"; nil for a mere number: the address has no symbol.
func parseSymbol(addr uint64, text string) (*kernelSymbol, bool) {
	if strings.HasPrefix(text, "0x") {
		return nil, true
	}
	plus := strings.LastIndex(text, "+0x")
	if plus <= 0 {
		return nil, false // it was cut
	}
	offset, rest, ok := strings.Cut(text[plus+len("+0x"):], "/0x")
	n, valid := parseHex([]byte(offset))
	if !ok || !valid || n > addr {
		return nil, false
	}
	_, module, _ := strings.Cut(rest, " ")
	return &kernelSymbol{addr: addr - n, found: true, text: true, name: []byte(strings.TrimSpace(text[:plus] + " " + module))}, true
}

// findText reads from r, which has the form of /proc/kallsyms, as far as the address of _text, which comes early.
func (k *kernelSymbols) findText(r io.Reader) {
	lines := bufio.NewScanner(io.LimitReader(r, maxBeforeText))
	for q := newKernelQuery(nil); q.text == 0 && lines.Scan(); k.text = q.text {
		q.line(lines.Bytes())
	}
}

// resolve names the wanted addresses in one pass over r, which has the form of /proc/kallsyms.
func (k *kernelSymbols) resolve(r io.Reader, wanted []uint64) error {
	q := newKernelQuery(wanted)
	if err := q.read(r); err != nil {
		return err
	}
	if q.lines > 0 && q.nonzero == 0 {
		return errRestricted
	}
	k.text = q.text
	var last *kernelSymbol // the greatest symbol up to the current address
	for i, addr := range q.wanted {
		if s := &q.best[i]; s.found && (last == nil || s.addr > last.addr) {
			last = s
		}
		k.set(addr, k.named(addr, last))
	}
	return nil
}

func (k *kernelSymbols) named(addr uint64, s *kernelSymbol) Frame {
	if s == nil || !s.text || addr-s.addr > maxKernelFunc {
		f := unknown("[kernel]", addr-k.text)
		f.Kind, f.Entry = Kernel, addr-k.text
		if k.text == 0 || addr < k.text {
			f.Func, f.SystemName, f.Entry = "[kernel]", "[kernel]", 0
		}
		return f
	}
	name := clean(string(s.name))
	return Frame{Func: name, SystemName: name, Kind: Kernel, Entry: k.relative(s.addr)}
}

// relative makes an address one from _text; 0 where that is not known: absolute ones are the kernel's secret.
func (k *kernelSymbols) relative(addr uint64) uint64 {
	if k.text == 0 || addr < k.text {
		return 0
	}
	return addr - k.text
}

// kernelQuery finds for each wanted address the greatest symbol that is not above it, whatever the
// order of the symbols: each symbol goes into the slot of the first wanted address that is not below it,
// a slot keeps its greatest, and the answer for slot i is the greatest of slots 0 to i.
type kernelQuery struct {
	wanted         []uint64 // sorted, distinct
	best           []kernelSymbol
	text           uint64
	last           uint64
	sorted         bool // so far: true in vmlinux's own symbols, which come first
	lines, nonzero int
}

type kernelSymbol struct {
	addr        uint64
	found, text bool
	name        []byte // reused from symbol to symbol
}

func newKernelQuery(wanted []uint64) *kernelQuery {
	w := slices.Clone(wanted)
	slices.Sort(w)
	w = slices.Compact(w)
	return &kernelQuery{wanted: w, best: make([]kernelSymbol, len(w)), sorted: true}
}

func (q *kernelQuery) read(r io.Reader) error {
	br := bufio.NewReaderSize(io.LimitReader(r, maxKallsyms), 64<<10)
	for !q.done() {
		line, err := br.ReadSlice('\n')
		if len(line) <= kallsymsLine {
			q.line(line)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read kallsyms: %w", err)
		}
	}
	return nil
}

// done: vmlinux's symbols are sorted and come first, and no module lies between them.
func (q *kernelQuery) done() bool {
	return q.sorted && q.text != 0 && len(q.wanted) > 0 && q.wanted[0] >= q.text && q.last > q.wanted[len(q.wanted)-1]
}

// line takes "ffffffff81000000 T _text" or, in a module, "ffffffffc0000000 t f\t[module]".
func (q *kernelQuery) line(line []byte) {
	hex, rest, ok := bytes.Cut(bytes.TrimRight(line, "\n"), []byte{' '})
	addr, valid := parseHex(hex)
	if !ok || !valid || len(rest) < 3 || rest[1] != ' ' {
		return
	}
	q.lines++
	if addr == 0 {
		return
	}
	q.nonzero++
	name := rest[2:]
	q.order(addr, name)
	q.add(addr, rest[0], name)
}

func (q *kernelQuery) order(addr uint64, name []byte) {
	if q.text == 0 && string(name) == "_text" {
		q.text = addr
	}
	if addr < q.last || bytes.IndexByte(name, '\t') >= 0 {
		q.sorted = false
	}
	q.last = addr
}

func (q *kernelQuery) add(addr uint64, typ byte, name []byte) {
	i, _ := slices.BinarySearch(q.wanted, addr)
	if i == len(q.wanted) {
		return
	}
	s := &q.best[i]
	text := typ == 't' || typ == 'T' || typ == 'w' || typ == 'W'
	// Of several names of one address the kernel shows the first (kernel/kallsyms.c: get_symbol_pos).
	if s.found && (addr < s.addr || addr == s.addr && (s.text || !text)) {
		return
	}
	s.addr, s.found, s.text = addr, true, text
	s.name = appendSymbol(s.name[:0], name)
}

// appendSymbol writes "f\t[module]" as "f [module]".
func appendSymbol(dst, name []byte) []byte {
	for _, c := range name {
		if c == '\t' {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

func parseHex(b []byte) (v uint64, ok bool) {
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	for _, c := range b {
		var d byte
		switch {
		case '0' <= c && c <= '9':
			d = c - '0'
		case 'a' <= c && c <= 'f':
			d = c - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(d)
	}
	return v, true
}
