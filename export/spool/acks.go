package spool

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net/url"
	"os"
	"unicode/utf8"

	"github.com/pprofd/pprofd/export/internal/private"
)

// An acks file is a list of records of 64 bytes, each with its checksum, so that a bad one costs nothing but itself. All but
// deliveries are there twice, since a drop that is forgotten would not come again: the profile is gone.
const (
	ackLen      = 64
	acksSuffix  = ".acks"
	maxReason   = 32   // bytes
	maxReasons  = 32   // their number
	maxAcks     = 2048 // that are added to a file until it is written anew
	maxAcksFile = 64 << 20
	ackVersion  = 1
)

// ackKind says what an ack is.
type ackKind uint8

const (
	delivered ackKind = iota + 1 // first to last, and their samples
	dropped                      // the same, for a reason
	known                        // neither to be delivered nor to be counted (again); samples as far as a batch is known in part
	total                        // so far, by reason ("": delivered): first is the number of profiles
	until                        // the destination was taken out at sequence number first; 0: it is back
	sequence                     // first is a number that was not used yet
)

type ack struct {
	kind        ackKind
	reason      string
	first, last uint64
	samples     int64
}

func (a ack) append(to []byte) []byte {
	var b [ackLen]byte
	b[4], b[5], b[6] = byte(a.kind), byte(len(a.reason)), ackVersion
	binary.LittleEndian.PutUint64(b[8:], a.first)
	binary.LittleEndian.PutUint64(b[16:], a.last)
	binary.LittleEndian.PutUint64(b[24:], uint64(a.samples))
	copy(b[32:], a.reason)
	binary.LittleEndian.PutUint32(b[:], crc32.Checksum(b[4:], table))
	return append(to, b[:]...)
}

func parseAck(b []byte) (a ack, ok bool) {
	if len(b) < ackLen || crc32.Checksum(b[4:ackLen], table) != binary.LittleEndian.Uint32(b) || b[6] != ackVersion || b[5] > maxReason {
		return ack{}, false
	}
	a = ack{
		kind: ackKind(b[4]), reason: string(b[32 : 32+b[5]]),
		first: binary.LittleEndian.Uint64(b[8:]), last: binary.LittleEndian.Uint64(b[16:]),
		samples: int64(binary.LittleEndian.Uint64(b[24:])),
	}
	ranged := a.kind == delivered || a.kind == dropped || a.kind == known
	if a.kind < delivered || a.kind > sequence || a.first > maxSeq || a.last > maxSeq || ranged && a.first > a.last {
		return ack{}, false
	}
	return a, true
}

// parseAcks reads a file of acks, and counts what is none.
func parseAcks(b []byte) (list []ack, bad int64) {
	for ; len(b) > 0; b = b[min(ackLen, len(b)):] {
		if a, ok := parseAck(b); ok {
			list = append(list, a)
		} else {
			bad++
		}
	}
	return list, bad
}

// appendAcks appends each ack as often as it has to be there.
func appendAcks(to []byte, list ...ack) []byte {
	for _, a := range list {
		to = a.append(to)
		if a.kind != delivered {
			to = a.append(to)
		}
	}
	return to
}

// acksName is the file name for a destination. Long names are told apart by their sum.
func acksName(destination string) string {
	const longest = 128
	name := url.QueryEscape(destination)
	if name[0] == '.' { // temporary files begin so
		name = "%2E" + name[1:]
	}
	if len(name) > longest {
		sum := sha256.Sum256([]byte(destination))
		name = name[:longest] + "~" + hex.EncodeToString(sum[:8])
	}
	return name + acksSuffix
}

// shortReason is what there is room for.
func shortReason(s string) string {
	if len(s) <= maxReason {
		return s
	}
	s = s[:maxReason]
	for !utf8.ValidString(s) && len(s) > maxReason-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return s
}

// ackFile is the file, or none where it could not be made. What is written to it is not synced: a program that is killed has written it,
// a machine that loses power has not.
type ackFile struct {
	dir  *private.Dir
	name string
	f    *os.File
	n    int64 // bytes
	base int64 // of them when it was made
}

// full says that it is time for a new file.
func (l *ackFile) full() bool { return l.n >= l.base+maxAcks*ackLen }

// append writes some acks with one call.
func (l *ackFile) append(list ...ack) error {
	b := appendAcks(make([]byte, 0, 2*ackLen*len(list)), list...)
	if _, err := l.f.WriteAt(b, l.n); err != nil {
		return err
	}
	l.n += int64(len(b))
	return nil
}

// replace makes a new file of some acks in place of the one that is there.
func (l *ackFile) replace(list []ack) error {
	f, temp, err := private.CreateTemp(l.dir.Root)
	if err != nil {
		return err
	}
	b := appendAcks(make([]byte, 0, 2*ackLen*len(list)), list...)
	reserve(f, int64(len(b))+(maxAcks+maxProfiles)*ackLen)
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.dir.Rename(temp, l.name)
	}
	if err != nil {
		f.Close()
		_ = l.dir.Remove(temp)
		return err
	}
	l.close()
	l.f, l.n, l.base = f, int64(len(b)), int64(len(b))
	return nil
}

// read reads the file that is there, and leaves it open for more.
func (l *ackFile) read() ([]ack, int64, error) {
	f, err := l.dir.OpenFile(l.name, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAcksFile))
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%s: %w", l.name, err)
	}
	l.close()
	list, bad := parseAcks(b)
	l.f, l.n, l.base = f, int64(len(b)/ackLen*ackLen), 0
	return list, bad, nil
}

func (l *ackFile) close() {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

func (l *ackFile) remove() {
	l.close()
	_ = l.dir.Remove(l.name)
}
