package pprofhttp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// texts serves texts of so many MiB.
func texts(t *testing.T, h *Handlers) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("GET /pid/{pid}/{size}", h.with(func(w http.ResponseWriter, r *http.Request, _ Request) error {
		var n int
		if _, err := fmt.Sscan(r.PathValue("size"), &n); err != nil {
			return err
		}
		return h.text(w, strings.Repeat("x", n<<20))
	}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return server
}

// Clients that do not read hold neither more than maxUnread nor that for ever.
func TestClientsThatDoNotRead(t *testing.T) {
	h := New(&self{}, &self{})
	h.readTime = 2 * time.Second
	server := texts(t, h)
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /pid/1/40 HTTP/1.1\r\nHost: h\r\n\r\n")
	await := func(want int64) {
		t.Helper()
		for until := time.Now().Add(20 * time.Second); h.unread.bytes.Load() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%d bytes wait for clients, want %d", h.unread.bytes.Load(), want)
			}
		}
	}
	await(40 << 20)
	status, header, text := request(t, "GET", server.URL+"/pid/1/40", "")
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") != "5" || !strings.Contains(text, "read 40 MiB") {
		t.Errorf("%d, %v, %q while a client does not read", status, header, text)
	}
	if status, _, text := request(t, "GET", server.URL+"/pid/1/20", ""); status != http.StatusOK || len(text) != 20<<20 {
		t.Errorf("%d, %d bytes: there is room for it", status, len(text))
	}
	await(0)
	if status, _, text := request(t, "GET", server.URL+"/pid/1/70", ""); status != http.StatusOK || len(text) != 70<<20 {
		t.Errorf("%d, %d bytes: a large one alone", status, len(text))
	}
	if n, err := io.Copy(io.Discard, c); n >= 40<<20 {
		t.Errorf("the client was not cut off: %d, %v", n, err)
	}
}

// Who reads slowly gets all, however long that takes.
func TestClientsThatReadSlowly(t *testing.T) {
	h := New(&self{}, &self{})
	h.readTime = time.Second
	server := texts(t, h)
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /pid/1/30 HTTP/1.0\r\nHost: h\r\n\r\n")
	start, got := time.Now(), int64(0)
	for {
		n, err := io.CopyN(io.Discard, c, 1<<20)
		got += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if took := time.Since(start); got < 30<<20 || took < 2*h.readTime {
		t.Errorf("%d bytes in %v", got, took)
	}
}

func TestErrorsAreLegible(t *testing.T) {
	server := serve(t, &self{name: "s", fail: NotFound("process 7 (\x1b[2J\u009b1m\u202eevil\r) is not to be profiled\nat all: größe")})
	_, _, text := request(t, "GET", server+fmt.Sprintf("/pid/%d/debug/pprof/heap", 7), "")
	if want := "process 7 (?[2J?1m?evil?) is not to be profiled\nat all: größe\n"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
}
