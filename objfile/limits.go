package objfile

// Limits on what one image may cost, whoever made its file. ARCHITECTURE.md lists what happens beyond.
const (
	// maxDWARF bounds what is read of one debug section, decompressed. A Go program of 100 MB has about 60 MB of .debug_info.
	maxDWARF = 128 << 20
	// maxDWARFSection bounds a debug section that is kept whole. Go's .debug_abbrev has 614 bytes, .debug_addr 1 MB in a program of 100 MB.
	maxDWARFSection = 4 << 20
)
