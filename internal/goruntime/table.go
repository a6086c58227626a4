package goruntime

//go:generate go run ./gen

// row is the layout of one Go minor version; generated from DWARF into offsets_table.go.
// The fields here are the same in all patch releases of a minor version, and on amd64 and arm64.
type row struct {
	minor int
	off   Offsets
}

// rowFor returns the row of a minor version.
func rowFor(minor int) (Offsets, bool) {
	for _, r := range offsetsTable() {
		if r.minor == minor {
			return r.off, true
		}
	}
	return Offsets{}, false
}

// newestRow is the last row of the table.
func newestRow() row {
	rows := offsetsTable()
	return rows[len(rows)-1]
}
