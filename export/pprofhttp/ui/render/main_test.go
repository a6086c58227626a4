package render

import (
	"fmt"
	"os"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

// The tests' own program is what the Renderer starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Arg {
		if err := Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaks.Run(m))
}
