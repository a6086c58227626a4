package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export"
)

// A batch file is a preamble of fixed length, a header with all that is known of the profiles, and their gzip'd bodies one
// after the other. Integers of the preamble are little-endian, those of the header varints.
const (
	magic       = "pprofd spool 1\n\x00"
	preambleLen = len(magic) + 8 + 4 + 4 + 4 + 5*8 + 4
	suffix      = ".spool"
	blockLen    = 4096

	maxProfiles = 2048    // in a batch
	maxBatch    = 4 << 20 // bytes at which a batch is full, bodies and headers
	maxHeader   = 64 << 20
	maxBody     = 256 << 20
	maxSeq      = 1 << 62
)

var table = crc32.MakeTable(crc32.Castagnoli)

var errCorrupt = errors.New("is corrupt")

// batch is one file of the spool, or, where that could not be written, its bytes.
type batch struct {
	first     uint64 // sequence number of its first profile
	count     int
	total     int64 // sum of Encoded.Total
	size      int64 // bytes
	headerLen uint32
	headerCRC uint32
	created   int64 // when it was committed, in Unix nanoseconds
	oldest    int64 // first and last Start of its profiles
	newest    int64

	mono    time.Duration // when it was committed, by the clock that does not step
	mem     []byte        // nil: it is on disk
	garbled bool          // it can only be counted
	evicted bool          // it was counted as removed
}

func (b *batch) last() uint64  { return b.first + uint64(b.count) - 1 }
func (b *batch) blocks() int64 { return (b.size + blockLen - 1) / blockLen * blockLen }
func (b *batch) name() string  { return fmt.Sprintf("%016x-%d-%d%s", b.first, b.count, b.total, suffix) }
func (b *batch) bodies() int64 { return int64(preambleLen) + int64(b.headerLen) }
func (b *batch) disk() (n int64) {
	if b.mem == nil {
		n = b.blocks()
	}
	return n
}

// age is how old a profile of b is that began at start, since it would be wrong to ask a clock that was set meanwhile.
func (b *batch) age(start int64, now time.Duration) time.Duration {
	return now - b.mono + time.Duration(b.created-start)
}

// parseName reads what the file held from its name, all that is left of one whose preamble is corrupt.
func parseName(name string) (b *batch, ok bool) {
	fields := strings.Split(strings.TrimSuffix(name, suffix), "-")
	if len(fields) != 3 {
		return nil, false
	}
	first, err1 := strconv.ParseUint(fields[0], 16, 64)
	count, err2 := strconv.ParseInt(fields[1], 10, 64)
	total, err3 := strconv.ParseInt(fields[2], 10, 64)
	if errors.Join(err1, err2, err3) != nil || first > maxSeq || count < 1 || count > maxProfiles {
		return nil, false
	}
	b = &batch{first: first, count: int(count), total: total}
	return b, b.name() == name
}

// appendPreamble appends the preamble of b.
func (b *batch) appendPreamble(to []byte) []byte {
	from := len(to)
	to = append(to, magic...)
	to = binary.LittleEndian.AppendUint64(to, b.first)
	for _, v := range []uint32{uint32(b.count), b.headerLen, b.headerCRC} {
		to = binary.LittleEndian.AppendUint32(to, v)
	}
	for _, v := range []int64{b.total, b.size, b.created, b.oldest, b.newest} {
		to = binary.LittleEndian.AppendUint64(to, uint64(v))
	}
	return binary.LittleEndian.AppendUint32(to, crc32.Checksum(to[from:], table))
}

// parsePreamble reads the first preambleLen bytes of a file.
func parsePreamble(p []byte) (*batch, error) {
	if len(p) < preambleLen || string(p[:len(magic)]) != magic {
		return nil, errCorrupt
	}
	p = p[:preambleLen]
	if crc32.Checksum(p[:preambleLen-4], table) != binary.LittleEndian.Uint32(p[preambleLen-4:]) {
		return nil, errCorrupt
	}
	p = p[len(magic):]
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(p[at:]) }
	i64 := func(at int) int64 { return int64(binary.LittleEndian.Uint64(p[at:])) }
	b := &batch{
		first: uint64(i64(0)), count: int(u32(8)), headerLen: u32(12), headerCRC: u32(16),
		total: i64(20), size: i64(28), created: i64(36), oldest: i64(44), newest: i64(52),
	}
	if b.first > maxSeq || b.count < 1 || b.count > maxProfiles || b.headerLen > maxHeader || b.size < b.bodies() {
		return nil, errCorrupt
	}
	return b, nil
}

// meta is what the header says of one profile.
type meta struct {
	profile export.Profile // without Encoded.Gzip
	encoded export.Encoded
	offset  int64 // of its body in the file
	length  int
	crc     uint32
}

// newBatch makes the batch of some profiles, which are encoded, and the beginning of its file: the bodies follow.
func newBatch(first uint64, created int64, profiles []*export.Profile) (*batch, []byte) {
	b := &batch{first: first, count: len(profiles), created: created, oldest: math.MaxInt64, newest: math.MinInt64}
	header := encodeHeader(profiles)
	b.headerLen, b.headerCRC = uint32(len(header)), crc32.Checksum(header, table)
	b.size = b.bodies()
	for _, p := range profiles {
		b.total += p.Encoded.Total
		b.size += int64(len(p.Encoded.Gzip))
		b.oldest, b.newest = min(b.oldest, p.Start.UnixNano()), max(b.newest, p.Start.UnixNano())
	}
	return b, append(b.appendPreamble(make([]byte, 0, int(b.bodies()))), header...)
}

// headerWriter writes each text and each set of labels once: processes have most of them in common.
type headerWriter struct {
	texts, sets       map[string]uint64
	textList, setList []byte
	key               []byte
}

func encodeHeader(profiles []*export.Profile) []byte {
	w := &headerWriter{texts: make(map[string]uint64), sets: make(map[string]uint64)}
	records := make([]byte, 0, 64*len(profiles))
	for _, p := range profiles {
		records = w.record(records, p)
	}
	b := binary.AppendUvarint(nil, uint64(len(w.texts)))
	b = append(b, w.textList...)
	b = binary.AppendUvarint(b, uint64(len(w.sets)))
	b = append(b, w.setList...)
	return append(b, records...)
}

func (w *headerWriter) record(b []byte, p *export.Profile) []byte {
	e := p.Encoded
	var labels uint64
	if e.Labels {
		labels = 1
	}
	for _, v := range []uint64{w.text(p.Kind), w.text(p.Comm), w.text(p.Service), w.set(p.Labels), p.StartTicks, labels, uint64(len(e.Gzip))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range []int64{int64(p.PID), p.Start.UnixNano(), int64(p.Duration), int64(e.Raw), int64(e.Samples), int64(e.Depth), e.Total} {
		b = binary.AppendVarint(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(e.Gzip, table))
}

func (w *headerWriter) text(s string) uint64 {
	n, ok := w.texts[s]
	if !ok {
		n = uint64(len(w.texts))
		w.texts[s] = n
		w.textList = binary.AppendUvarint(w.textList, uint64(len(s)))
		w.textList = append(w.textList, s...)
	}
	return n
}

// set returns 0 for no labels, which is not the same as none of them.
func (w *headerWriter) set(labels []export.Label) uint64 {
	if labels == nil {
		return 0
	}
	w.key = binary.AppendUvarint(w.key[:0], uint64(len(labels)))
	for _, l := range labels {
		w.key = binary.AppendUvarint(w.key, w.text(l.Name))
		w.key = binary.AppendUvarint(w.key, w.text(l.Value))
	}
	n, ok := w.sets[string(w.key)]
	if !ok {
		n = uint64(len(w.sets)) + 1
		w.sets[string(w.key)] = n
		w.setList = append(w.setList, w.key...)
	}
	return n
}

// headerReader reads what headerWriter wrote, and does not believe it.
type headerReader struct {
	rest  []byte
	bad   bool
	texts []string
	sets  [][]export.Label
}

// decodeHeader reads a header of count profiles. bodies is where in the file the first body begins.
func decodeHeader(header []byte, count int, bodies int64) ([]meta, error) {
	r := &headerReader{rest: header}
	r.readTexts()
	r.readSets()
	list := make([]meta, 0, min(count, len(r.rest)))
	for range count {
		if r.bad {
			return nil, errCorrupt
		}
		m := r.record()
		m.offset = bodies
		bodies += int64(m.length)
		list = append(list, m)
	}
	if r.bad || len(r.rest) > 0 {
		return nil, errCorrupt
	}
	return list, nil
}

func (r *headerReader) readTexts() {
	n := r.length()
	r.texts = make([]string, 0, n)
	for range n {
		r.texts = append(r.texts, string(r.bytes(r.length())))
	}
}

func (r *headerReader) readSets() {
	n := r.length()
	r.sets = make([][]export.Label, 0, n)
	for range n {
		set := make([]export.Label, r.length())
		for i := range set {
			set[i] = export.Label{Name: r.text(), Value: r.text()}
		}
		r.sets = append(r.sets, set)
	}
}

func (r *headerReader) record() (m meta) {
	p, e := &m.profile, &m.encoded
	p.Kind, p.Comm, p.Service, p.Labels, p.StartTicks = r.text(), r.text(), r.text(), r.set(), r.uvarint()
	e.Labels = r.uvarint() == 1
	length := r.uvarint()
	r.bad = r.bad || length > maxBody
	m.length = int(length)
	p.PID, p.Start, p.Duration = int(r.varint()), time.Unix(0, r.varint()), time.Duration(r.varint())
	e.Raw, e.Samples, e.Depth, e.Total = int(r.varint()), int(r.varint()), int(r.varint()), r.varint()
	if b := r.bytes(4); !r.bad {
		m.crc = binary.LittleEndian.Uint32(b)
	}
	return m
}

func (r *headerReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	return r.took(n, v)
}

func (r *headerReader) varint() int64 {
	v, n := binary.Varint(r.rest)
	return int64(r.took(n, uint64(v)))
}

func (r *headerReader) took(n int, v uint64) uint64 {
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// length is of a list, of which each element takes a byte at least.
func (r *headerReader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *headerReader) bytes(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *headerReader) text() string {
	n := r.uvarint()
	if n >= uint64(len(r.texts)) {
		r.bad = true
		return ""
	}
	return r.texts[n]
}

func (r *headerReader) set() []export.Label {
	n := r.uvarint()
	if n > uint64(len(r.sets)) {
		r.bad = true
		return nil
	}
	if n == 0 {
		return nil
	}
	return r.sets[n-1]
}

// readHeader reads the header of b.
func (b *batch) readHeader(f io.ReaderAt) ([]meta, error) {
	if b.garbled {
		return nil, errCorrupt
	}
	header := make([]byte, b.headerLen)
	if err := readFull(f, header, int64(preambleLen)); err != nil {
		return nil, err
	}
	if crc32.Checksum(header, table) != b.headerCRC {
		return nil, errCorrupt
	}
	list, err := decodeHeader(header, b.count, b.bodies())
	if err != nil {
		return nil, err
	}
	if last := list[len(list)-1]; last.offset+int64(last.length) != b.size {
		return nil, errCorrupt
	}
	return list, nil
}

// read returns the profile that m describes.
func (m *meta) read(f io.ReaderAt) (*export.Profile, error) {
	body := make([]byte, m.length)
	if err := readFull(f, body, m.offset); err != nil {
		return nil, err
	}
	if crc32.Checksum(body, table) != m.crc {
		return nil, errCorrupt
	}
	p, e := m.profile, m.encoded
	e.Gzip = body
	p.Encoded = &e
	return &p, nil
}

// readFull reads all of p. A file that is too short is corrupt.
func readFull(f io.ReaderAt, p []byte, offset int64) error {
	n, err := f.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errCorrupt
	}
	return err
}
