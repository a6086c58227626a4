package kubernetes

import (
	"os"
	"testing"
)

// burnEnv makes this program one to be profiled.
const burnEnv = "PPROFD_TEST_BURN"

func TestMain(m *testing.M) {
	if os.Getenv(burnEnv) != "" {
		burn()
	}
	os.Exit(m.Run())
}

var sink uint64

// burn uses a CPU until it is killed.
//
//go:noinline
func burn() {
	for x := uint64(1); ; x ^= x << 7 {
		sink += x
	}
}
