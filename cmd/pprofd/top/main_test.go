package top

import (
	"os"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }
