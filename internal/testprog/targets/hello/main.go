// Command hello prints "ready" and its process ID, and sleeps until its standard input is closed.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	fmt.Println("ready", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
}
