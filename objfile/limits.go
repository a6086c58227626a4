package objfile

import (
	"errors"
	"time"
)

// ErrFUSE says why a file is not read.
var ErrFUSE = errors.New("on a FUSE file system, whose server could stall the profiler")

// Limits on what one image may cost, whoever made its file. ARCHITECTURE.md says what happens beyond.
const (
	// maxRead is how many bytes are read of one image; bytesPerSecond more for each second since it was opened. Naming
	// 65,536 addresses takes 2 GiB where nothing is found in the caches, and a second or two.
	maxRead        = 4 << 30
	bytesPerSecond = 8 << 20
	// maxWait is how long one image is waited for, in all its reads; and a twentieth of the time since it was opened.
	maxWait   = 10 * time.Second
	waitShare = 20
	// maxStall is how long a single read, or opening a file, may take where whoever runs a process may be the one to answer:
	// on network, overlay and FUSE file systems, and in the memory of processes (which may map such files).
	maxStall = 5 * time.Second
	// maxSearchTime is how long the images of one process are searched for Go's tables. An image that is not known yet
	// then is taken for one without.
	maxSearchTime = 20 * time.Second
	// Reload takes at most 1/reloadShare of the time in processes of more than fewMappings mappings.
	fewMappings = 4096
	reloadShare = 20

	// maxDWARF bounds what is read of one debug section, decompressed. A Go program of 100 MB has about 60 MB of .debug_info.
	maxDWARF = 128 << 20
	// maxDWARFSection bounds a debug section that is kept whole. Go's .debug_abbrev has 614 bytes, .debug_addr 1 MB in a program of 100 MB.
	maxDWARFSection = 4 << 20

	// .gnu_debugdata is unpacked in memory: what it was, what it is, and a dictionary.
	maxDebugData      = 4 << 20 // compressed
	maxDebugDataPlain = 16 << 20
	maxDictionary     = 64 << 20 // what xz -9 uses; never more than what is unpacked
	maxXZBlocks       = 1024

	maxSymbols    = 1_000_000 // kept, 16 bytes each
	maxSymbolScan = 8_000_000 // read of one table
)
