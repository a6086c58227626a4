//go:build !linux

package needs

import (
	"fmt"
	"runtime"
)

func probeBPF() error { return fmt.Errorf("BPF needs Linux, not %s", runtime.GOOS) }
