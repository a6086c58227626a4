package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/export"
)

func FuzzHeader(f *testing.F) {
	at := time.Unix(1_800_000_000, 5)
	for _, n := range []int{1, 2, 5} {
		var list []*export.Profile
		for i := range n {
			list = append(list, numbered(i, at, int64(i)))
		}
		list[0].Labels = nil
		f.Add(encodeHeader(list), n)
	}
	f.Fuzz(func(t *testing.T, header []byte, count int) {
		if count < 1 || count > maxProfiles {
			return
		}
		metas, err := decodeHeader(header, count, 1000)
		if err != nil {
			return
		}
		offset := int64(1000)
		for _, m := range metas {
			if m.offset != offset || m.length < 0 || m.length > maxBody {
				t.Fatalf("%+v at %d", m, offset)
			}
			offset += int64(m.length)
		}
		if len(metas) != count {
			t.Fatalf("%d profiles of %d", len(metas), count)
		}
	})
}

func FuzzBatch(f *testing.F) {
	list := []*export.Profile{numbered(1, time.Unix(1_800_000_000, 5), 3), numbered(2, time.Unix(1_800_000_000, 6), 4)}
	_, file := newBatch(77, 5, list)
	for _, p := range list {
		file = append(file, p.Encoded.Gzip...)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, file []byte) {
		file = repaired(file)
		b, err := parsePreamble(file)
		if err != nil || b.headerLen > 1<<20 {
			return
		}
		if again := b.appendPreamble(nil); !bytes.Equal(again, file[:preambleLen]) {
			t.Fatalf("%x is written %x", file[:preambleLen], again)
		}
		metas, err := b.readHeader(bytes.NewReader(file))
		if err != nil {
			return
		}
		for i := range metas {
			p, err := metas[i].read(bytes.NewReader(file))
			if err == nil && len(p.Encoded.Gzip) != metas[i].length {
				t.Fatalf("%d bytes of %d", len(p.Encoded.Gzip), metas[i].length)
			}
		}
	})
}

// repaired gives the header and the preamble of file the sums that they should have, so that the rest is read at all.
func repaired(file []byte) []byte {
	file = slices.Clone(file)
	if len(file) < preambleLen {
		return file
	}
	at := len(magic) + 12 // of the length of the header
	header := file[preambleLen:]
	header = header[:min(len(header), int(binary.LittleEndian.Uint32(file[at:])))]
	binary.LittleEndian.PutUint32(file[at+4:], crc32.Checksum(header, table))
	binary.LittleEndian.PutUint32(file[preambleLen-4:], crc32.Checksum(file[:preambleLen-4], table))
	return file
}

func FuzzAcks(f *testing.F) {
	f.Add(appendAcks(nil, ack{delivered, "", 5, 5, 7}, ack{dropped, "http_400", 6, 9, 1}, ack{kind: until, first: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, bad := parseAcks(b)
		if want := (len(b) + ackLen - 1) / ackLen; len(list)+int(bad) != want {
			t.Fatalf("%d and %d bad of %d", len(list), bad, want)
		}
		for _, a := range list {
			again, bad := parseAcks(a.append(nil))
			if d := cmp.Diff([]ack{a}, again, cmp.AllowUnexported(ack{})); d != "" || bad > 0 {
				t.Fatal(d)
			}
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add((&batch{first: 77, count: 3, total: 99}).name())
	f.Add("zz-1-2.spool")
	f.Fuzz(func(t *testing.T, name string) {
		if b, ok := parseName(name); ok && (b.name() != name || b.last() < b.first) {
			t.Fatalf("%q is %q", name, b.name())
		}
	})
}
