package parca

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pprofd/pprofd/export"
)

// header is what servers look at before samples. A profile whose header is right is sent as it is, which spares most
// profiles that they are parsed.
type header struct {
	types          []valueType
	period         valueType
	time, duration int64
	texts          map[uint64]string // of those that the types need
	texted         uint64            // number of strings
}

// valueType holds numbers of strings.
type valueType struct{ name, unit uint64 }

// Fields of pprof's Profile (google/pprof, proto/profile.proto).
const (
	fieldSampleType  = 1
	fieldStringTable = 6
	fieldTime        = 9
	fieldDuration    = 10
	fieldPeriodType  = 11
)

var errCut = errors.New("the profile is no pprof")

func readHeader(e *export.Encoded) (*header, error) {
	raw, err := unzip(e)
	if err != nil {
		return nil, err
	}
	return parseHeader(raw)
}

func parseHeader(raw []byte) (*header, error) {
	h := &header{texts: make(map[uint64]string)}
	if err := fields(raw, h.field); err != nil {
		return nil, err
	}
	return h, h.readTexts(raw)
}

// fields calls f with each field of the message b; v is the number of a number, data what other fields hold.
func fields(b []byte, f func(n protowire.Number, v uint64, data []byte) error) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errCut
		}
		b = b[size:]
		var v uint64
		var data []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return errCut
		}
		b = b[size:]
		if err := f(n, v, data); err != nil {
			return err
		}
	}
	return nil
}

func (h *header) field(n protowire.Number, v uint64, data []byte) (err error) {
	switch n {
	case fieldSampleType:
		t, err := readValueType(data)
		h.types = append(h.types, t)
		return err
	case fieldPeriodType:
		h.period, err = readValueType(data)
	case fieldTime:
		h.time = int64(v)
	case fieldDuration:
		h.duration = int64(v)
	}
	return err
}

func readValueType(b []byte) (t valueType, err error) {
	err = fields(b, func(n protowire.Number, v uint64, _ []byte) error {
		switch n {
		case 1:
			t.name = v
		case 2:
			t.unit = v
		}
		return nil
	})
	return t, err
}

// readTexts finds the strings that the types name: the table comes behind them.
func (h *header) readTexts(raw []byte) error {
	for _, t := range append(slices.Clone(h.types), h.period) {
		h.texts[t.name], h.texts[t.unit] = "", ""
	}
	return fields(raw, func(n protowire.Number, _ uint64, data []byte) error {
		if n != fieldStringTable {
			return nil
		}
		if h.texted == 0 && len(data) > 0 {
			return fmt.Errorf("%w: its first string is %.20q", errCut, data)
		}
		if _, wanted := h.texts[h.texted]; wanted {
			h.texts[h.texted] = string(data)
		}
		h.texted++
		return nil
	})
}

// fits says whether a server takes the profile, and for what it is.
func (h *header) fits(k kind) bool {
	for _, t := range append(slices.Clone(h.types), h.period) {
		for _, text := range []string{h.texts[t.name], h.texts[t.unit]} {
			if text == "" || text != export.LabelName(text) {
				return false
			}
		}
	}
	return len(h.types) > 0 && h.time > 0 && (h.duration > 0) != k.instant && h.duration >= 0
}
