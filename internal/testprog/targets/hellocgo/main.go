// Command hellocgo is hello with C code in it.
package main

/*
#include <unistd.h>

static int c_getpid(void) { return getpid(); }
*/
import "C"

import (
	"fmt"
	"io"
	"os"
)

func main() {
	fmt.Println("ready", C.c_getpid())
	io.Copy(io.Discard, os.Stdin)
}
