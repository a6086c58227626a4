package web

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// URL is where a client on this host finds path, with the token where one is needed: it is a secret then.
func (c *Config) URL(path string) (*url.URL, error) {
	if socket, ok := strings.CutPrefix(c.Listen, unixPrefix); ok {
		return nil, fmt.Errorf("the agent listens on a Unix socket, which has no URL: use curl --unix-socket %s http://localhost%s", socket, path)
	}
	host, port, err := net.SplitHostPort(c.Listen)
	switch {
	case c.Listen == "":
		return nil, errors.New("the agent does not listen (listen is empty): give it an address")
	case err != nil:
		return nil, fmt.Errorf("listen %q: give HOST:PORT, as in 127.0.0.1:6061", c.Listen)
	case port == "0":
		return nil, fmt.Errorf("listen %q: the agent gets another port with each start, and prints it: give that one", c.Listen)
	}
	text, err := c.Token()
	if err != nil {
		return nil, err
	}
	u := &url.URL{Scheme: "http", Host: net.JoinHostPort(reachable(host), port), Path: path}
	if c.TLS.Cert != "" {
		u.Scheme = "https"
	}
	if text != "" {
		u.User = url.UserPassword(User, text)
	}
	return u, nil
}

// reachable is the loopback address where host stands for all addresses.
func reachable(host string) string {
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && ip.IsUnspecified() && ip.Is4():
		return "127.0.0.1"
	case err == nil && ip.IsUnspecified():
		return "::1"
	}
	return host
}
