package export

import "strings"

// WaitedIn says whether a function is one that programs wait in, rather than one that waits: of the runtime, and of the packages of the
// standard library that hand waiting on to it.
func WaitedIn(function string) bool {
	for _, pkg := range waitedIn {
		if strings.HasPrefix(function, pkg) {
			return true
		}
	}
	return false
}

var waitedIn = []string{"runtime.", "internal/", "sync.", "sync/", "syscall.", "time.", "os.", "io.", "bufio.", "net."}
