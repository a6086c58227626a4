package spool

import (
	"os"
	"syscall"
)

// reserve sees to it that f can grow to size bytes when the disk is full, if that can be had.
func reserve(f *os.File, size int64) {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE, linux/falloc.h
	_ = syscall.Fallocate(int(f.Fd()), keepSize, 0, size)
}
