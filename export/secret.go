package export

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

const maxSecret = 64 << 10

// ReadSecret returns the line that the file holds: a token, a password. Exporters call it for each request, so that a file that
// changes counts at once; that costs some 10 µs. Its errors do not tell what is in the file, and are worth a retry: it may be
// about to change.
func ReadSecret(path string) (string, error) {
	text, err := readSecret(path)
	if err != nil {
		return "", fmt.Errorf("secret file %s: %w", path, err)
	}
	return text, nil
}

func readSecret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // not to wait for the writer of a pipe
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", errors.New("is no regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	text := strings.Trim(string(b), " \t\r\n")
	switch {
	case len(b) > maxSecret:
		return "", fmt.Errorf("is larger than %d bytes", maxSecret)
	case text == "":
		return "", errors.New("is empty")
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("holds more than one line of text")
	}
	return text, nil
}
