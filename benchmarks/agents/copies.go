package agents

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// BuildID is what programs are built with (go build -ldflags "-B 0x...") of which copies are to be made.
var BuildID = strings.Repeat("5ca1ab1e", 5)

// Copy writes the n-th distinct copy of a program: another file with a build ID of its own.
func Copy(from, to string, n int) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	id, err := hex.DecodeString(BuildID)
	if err != nil {
		return err
	}
	if c := bytes.Count(b, id); c != 1 {
		return fmt.Errorf("%s has its build ID %d times", from, c)
	}
	own := []byte(fmt.Sprintf("pprofd%014d", n)) // as long as the ID, 20 bytes
	return os.WriteFile(to, bytes.Replace(b, id, own, 1), 0o755)
}
