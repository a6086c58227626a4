package pyroscope

import (
	stdcontext "context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"time"
)

// Fault is what a request meets instead of an answer, or before it. Of What, one is chosen.
type Fault struct {
	What   What
	Take   bool          // the profile is taken all the same: only the answer fails
	Status int           // of Answer
	Body   string        // of Answer; "": what the real server says with that status
	Header http.Header   // of Answer
	Pause  time.Duration // of Slow: between two bytes; 0: 1 s
	After  int           // of Reset: bytes of the request's body that are read before
}

// What happens.
type What int

// Kinds of faults.
const (
	Answer      What = iota // Status, Header and Body
	Hang                    // the request is read, and never answered
	SlowRead                // the request is read one byte each Pause, and answered as usual
	SlowAnswer              // the answer is written one byte each Pause
	Reset                   // the connection is reset in the middle of the request
	ResetAnswer             // the connection is reset in the middle of the answer
	Garbage                 // 200, and a body that is none of this API
	Noise                   // what comes back is no HTTP
	Through                 // none: between others, a request that is answered as usual
)

// Fail has the next requests meet these faults, one each; then it is as before.
func (s *Server) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// FailAll has all requests meet f, until Heal.
func (s *Server) FailAll(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = &f
}

// Heal ends all faults to come. Those that requests hang in go on.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.always = nil, nil
}

func (s *Server) fault() *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) > 0 {
		f := s.faults[0]
		s.faults = s.faults[1:]
		if f.What == Through {
			return nil
		}
		return &f
	}
	return s.always
}

// fail lets f happen.
func (s *Server) fail(f *Fault, t *tally, r *http.Request) {
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	pause := f.Pause
	if pause == 0 {
		pause = time.Second
	}
	switch f.What {
	case Reset:
		_, _ = io.CopyN(io.Discard, r.Body, int64(f.After)) // the client may be gone: so be it
		reset(t)
		return
	case SlowRead:
		if !crawl(r.Context(), gone, pause, func() bool { _, err := io.CopyN(io.Discard, r.Body, 1); return err == nil }) {
			return
		}
	}
	usual := s.usual(f, r)
	defer usual.Body.Close()
	switch f.What {
	case Answer:
		f.answer(t)
	case Hang:
		wait(r.Context(), gone)
	case SlowRead:
		t.WriteHeader(usual.StatusCode)
	case SlowAnswer:
		t.slowly(r.Context(), gone, pause, dump(usual))
	case ResetAnswer:
		text := dump(usual)
		t.raw(text[:len(text)/2])
	case Garbage:
		t.Header().Set("Content-Type", "application/proto")
		_, _ = io.WriteString(t, "\xff\xfe<html>\x00 this is nothing \x07") // likewise
	case Noise:
		t.raw([]byte("\x00\x01\x02 220 smtp.example.org ESMTP\r\n"))
	}
}

// usual is what would have been answered, if the profile is taken; else that it is well. The request is read in any case.
func (s *Server) usual(f *Fault, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	if f.Take {
		s.serve(w, r)
	}
	_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
	return w.Result()
}

func (f *Fault) answer(t *tally) {
	for name, values := range f.Header {
		t.Header()[name] = values
	}
	body := f.Body
	if body == "" {
		t.Header().Set("Content-Type", "application/json")
		body = `{"code":"` + codes[f.Status] + `","message":"so it was ordered"}`
	}
	t.WriteHeader(f.Status)
	_, _ = io.WriteString(t, body) // likewise
}

// codes of the errors of Connect by status, as the real server gives them.
var codes = map[int]string{
	400: "invalid_argument", 401: "unauthenticated", 403: "permission_denied", 404: "unimplemented", 413: "resource_exhausted",
	422: "unknown", 429: "resource_exhausted", 500: "unknown", 503: "unavailable", 504: "deadline_exceeded",
}

func dump(r *http.Response) []byte {
	text, err := httputil.DumpResponse(r, true)
	if err != nil {
		panic(err) // it was recorded
	}
	return text
}

// crawl calls step each pause until it is false; it is false itself if the client, or the server, is gone before.
func crawl(ctx stdcontext.Context, gone chan struct{}, pause time.Duration, step func() bool) bool {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for step() {
		select {
		case <-ctx.Done():
			return false
		case <-gone:
			return false
		case <-tick.C:
		}
	}
	return true
}

func wait(ctx stdcontext.Context, gone chan struct{}) {
	select {
	case <-ctx.Done():
	case <-gone:
	}
}

// slowly writes text as it is, one byte after the other.
func (t *tally) slowly(ctx stdcontext.Context, gone chan struct{}, pause time.Duration, text []byte) {
	conn := t.hijack()
	if conn == nil { // HTTP/2: what can be slow is the answer's end
		crawl(ctx, gone, pause, func() bool { return true })
		return
	}
	defer conn.Close()
	crawl(ctx, gone, pause, func() bool {
		_, err := conn.Write(text[:1])
		text = text[1:]
		return err == nil && len(text) > 0
	})
}

// raw writes text as it is, and resets the connection.
func (t *tally) raw(text []byte) {
	conn := t.hijack()
	if conn == nil {
		panic(http.ErrAbortHandler) // of HTTP/2 the stream is reset
	}
	_, _ = conn.Write(text)           // the client may be gone
	time.Sleep(10 * time.Millisecond) // a reset would overtake what is still to be read
	abort(conn)
}

func reset(t *tally) {
	conn := t.hijack()
	if conn == nil {
		panic(http.ErrAbortHandler)
	}
	abort(conn)
}

// hijack is nil for HTTP/2.
func (t *tally) hijack() net.Conn {
	conn, _, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil
	}
	return conn
}

func abort(conn net.Conn) {
	raw := conn
	if c, ok := conn.(*tls.Conn); ok {
		raw = c.NetConn()
	}
	if c, ok := raw.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // closed anyway
	}
	raw.Close()
}
