//go:build !linux

package objfile

import "errors"

// OpenCore opens a core file.
func OpenCore(string) (*Core, error) { return nil, errors.ErrUnsupported }

func openCoreFile(string, bool) (*mappedFile, error) { return nil, errors.ErrUnsupported }
