package pprofhttp

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// Bounds on what clients have yet to read.
const (
	maxUnread = 64 << 20 // bytes of answers
	readStep  = 64 << 10 // bytes that a client has to read
	readTime  = 30 * time.Second
	bodyTime  = 15 * time.Second // in which a request has to be there
	busyAfter = 5 * time.Second
)

// unread counts the bytes of answers that are under way.
type unread struct{ bytes atomic.Int64 }

// answer answers with what f writes, once that is complete: what it is made of need not wait for a client that reads slowly, and one
// that stops reading is cut off.
func (h *Handlers) answer(w http.ResponseWriter, f func(io.Writer) error) error {
	var b bytes.Buffer
	if err := f(&b); err != nil {
		return err
	}
	n := int64(b.Len())
	defer h.unread.bytes.Add(-n)
	if all := h.unread.bytes.Add(n); all > maxUnread && all > n { // one of them may be as large as it is
		return Busy(busyAfter, "clients have yet to read %d MiB of other answers: try again later", (all-n)>>20)
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	c := http.NewResponseController(w)
	for step := range slices.Chunk(b.Bytes(), readStep) {
		_ = c.SetWriteDeadline(time.Now().Add(h.readTime)) // connections of HTTP/1 have one
		if _, err := w.Write(step); err != nil {
			return nil // there is nobody to tell
		}
	}
	return nil
}

// text answers with a text.
func (h *Handlers) text(w http.ResponseWriter, text string) error {
	return h.answer(w, func(out io.Writer) error {
		w.Header().Set("Content-Type", plain)
		_, err := io.WriteString(out, text)
		return err
	})
}

// body is all of a request's body.
func body(w http.ResponseWriter, r *http.Request) (string, error) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyTime))
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return "", bad("reading request: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{}) // of the connection, which is watched from here on
	return string(b), nil
}

// legible keeps what programs call themselves from steering the terminal of who reads an error.
func legible(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
