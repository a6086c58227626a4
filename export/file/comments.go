package file

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/pprofd/pprofd/export"
)

// Fields of message Profile in pprof's profile.proto.
const (
	fieldStringTable = 6
	fieldComment     = 13
)

var errEncoding = errors.New("the encoded profile is broken")

// labelComments are what a file has to say about its process: pprof has labels of samples only. They are one line, as Prometheus
// writes labels, since go tool pprof prints all comments above each of its tables.
func labelComments(p *export.Profile) []string {
	var labels []export.Label
	if p.Service != "" {
		labels = append(labels, export.Label{Name: labelService, Value: p.Service})
	}
	return labelComment(append(labels, p.Labels...))
}

const (
	labelService = "service_name"
	labelsBegin  = "labels {"
	labelsEnd    = "}"
)

// labelComment is one comment, or none.
func labelComment(labels []export.Label) []string {
	if len(labels) == 0 {
		return nil
	}
	pairs := make([]string, len(labels))
	for i, l := range labels {
		pairs[i] = pair(l.Name, l.Value)
	}
	return []string{labelsBegin + strings.Join(pairs, ", ") + labelsEnd}
}

var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func pair(name, value string) string {
	return strings.ToValidUTF8(name, "\uFFFD") + `="` + quoted.Replace(strings.ToValidUTF8(value, "\uFFFD")) + `"`
}

// appendComments makes the bytes that have to follow an encoded, uncompressed profile so that it has further comments:
// repeated fields of a message may come in several places, and add up. The profile itself stays as it is, for others may be
// reading it.
func appendComments(dst, encoded []byte, comments []string) ([]byte, error) {
	n, err := countStrings(encoded)
	if err != nil {
		return nil, err
	}
	for _, c := range comments {
		dst = binary.AppendUvarint(dst, fieldStringTable<<3|2)
		dst = binary.AppendUvarint(dst, uint64(len(c)))
		dst = append(dst, c...)
	}
	for i := range comments {
		dst = binary.AppendUvarint(dst, fieldComment<<3)
		dst = binary.AppendUvarint(dst, uint64(n+i))
	}
	return dst, nil
}

// countStrings is the length of the string table.
func countStrings(b []byte) (n int, err error) {
	for len(b) > 0 {
		key, size := binary.Uvarint(b)
		if size <= 0 {
			return 0, errEncoding
		}
		v, valueSize := binary.Uvarint(b[size:])
		if valueSize <= 0 {
			return 0, errEncoding
		}
		b = b[size+valueSize:]
		switch key & 7 {
		case 0: // varint
		case 2: // bytes
			if v > uint64(len(b)) {
				return 0, errEncoding
			}
			b = b[v:]
		default: // profile.proto has no others
			return 0, errEncoding
		}
		if key>>3 == fieldStringTable {
			n++
		}
	}
	return n, nil
}
