package goruntime

import (
	"bytes"
	"testing"
	"time"
)

// TestBlocksAgain: a pass in the memory of another sees nothing of it, and takes no more.
func TestBlocksAgain(t *testing.T) {
	c, got := &blocks{}, make([]byte, 100)
	pass := func(fill byte) {
		c.again(bytes.NewReader(bytes.Repeat([]byte{fill}, 4*blockSize+pageBytes)), time.Minute)
		for _, addr := range []uint64{0, blockSize, 3*blockSize - 50, 4 * blockSize} { // the last block is a page
			if err := c.read(addr, got); err != nil {
				t.Fatal(err)
			}
			if want := bytes.Repeat([]byte{fill}, len(got)); !bytes.Equal(got, want) {
				t.Fatalf("at %#x: %v, want %v", addr, got, want)
			}
		}
		c.end()
	}
	pass(1)
	kept := c.bytes()
	if kept != 5*blockSize {
		t.Errorf("%d bytes are kept, want %d", kept, 5*blockSize)
	}
	pass(2)
	if c.bytes() != kept || c.mem != nil {
		t.Errorf("%d bytes are kept after another pass, %d before; memory %v", c.bytes(), kept, c.mem)
	}
}
