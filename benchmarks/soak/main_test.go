package main

import (
	"os"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

// The measured process is a copy of this binary, too.
func TestMain(m *testing.M) {
	if os.Getenv(measuredEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(leaks.Run(m))
}
