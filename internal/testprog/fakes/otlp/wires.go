package otlp

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// wires are the connections of a server, and what happens on them.
type wires struct {
	cut   atomic.Bool // the next request is reset while it is read
	onCut func()      // is called when that has happened
	slow  atomic.Bool // a byte a second is written

	mu    sync.Mutex
	conns map[*wire]bool
}

type listener struct {
	net.Listener
	w *wires
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.w.conns == nil {
		l.w.conns = map[*wire]bool{}
	}
	w := &wire{Conn: c, w: l.w, closed: make(chan struct{})}
	l.w.conns[w] = true
	return w, nil
}

// reset ends all connections with a reset (RST).
func (ws *wires) reset() {
	ws.mu.Lock()
	list := ws.conns
	ws.conns = nil
	ws.mu.Unlock()
	for c := range list {
		c.reset()
	}
}

type wire struct {
	net.Conn
	w      *wires
	read   int // bytes since the next request has been one to be reset
	once   sync.Once
	closed chan struct{}
}

// middle is more than what a client sends before a request's body (HTTP/2: preface, settings, headers), and less than what it has
// sent in the middle of a request of some size. With TLS it may be within the handshake.
const middle = 1000

func (c *wire) Read(b []byte) (int, error) {
	if c.w.cut.Load() {
		b = b[:min(len(b), 100)]
	} else {
		c.read = 0
	}
	n, err := c.Conn.Read(b)
	c.read += n
	if c.read > middle && c.w.cut.CompareAndSwap(true, false) {
		c.w.onCut()
		c.reset()
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *wire) Write(b []byte) (int, error) {
	for i := range b {
		if !c.w.slow.Load() {
			n, err := c.Conn.Write(b[i:])
			return i + n, err
		}
		select {
		case <-c.closed:
			return i, net.ErrClosed
		case <-time.After(time.Second):
		}
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func (c *wire) reset() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func (c *wire) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.w.mu.Lock()
	delete(c.w.conns, c)
	c.w.mu.Unlock()
	return c.Conn.Close()
}
