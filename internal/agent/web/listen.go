package web

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// open makes the listener.
func (s *Server) open() error {
	l, err := s.config.listen()
	if err != nil {
		return err
	}
	l = &limited{Listener: l, free: make(chan struct{}, maxConns), tooMany: func() { s.stats.refused("connections") }}
	if s.config.TLS.Cert != "" {
		if l, err = s.config.TLS.listener(l); err != nil {
			return err
		}
	}
	s.listen = l
	return nil
}

func (c *Config) listen() (net.Listener, error) {
	if path, ok := strings.CutPrefix(c.Listen, unixPrefix); ok {
		return listenUnix(path)
	}
	l, err := net.Listen("tcp", c.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: another program listens there: choose another address by listen, or \"\" for none", err)
	}
	return l, err
}

// listenUnix makes a socket that only its owner can connect to, from the first moment on: the kernel gives the file the
// mode of the socket (unix_bind in net/unix/af_unix.c).
func listenUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var errMode error
		err := c.Control(func(fd uintptr) { errMode = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, errMode)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	st, err := os.Lstat(path)
	if err == nil && st.Mode() != fs.ModeSocket|0o600 {
		err = fmt.Errorf("the socket cannot be kept from others here (mode %v): choose another directory", st.Mode())
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on: that of an agent that was killed.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something else than a socket: remove it, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return errors.New("another program listens there: stop it, or choose another path")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// limited closes connections beyond a number at once: to let them wait would let whoever holds the others stop all.
type limited struct {
	net.Listener
	free    chan struct{}
	tooMany func()
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			c.Close()
			l.tooMany()
		}
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
