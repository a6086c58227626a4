// Package web is the agent's HTTP front: who may connect, who may see what, and how long a client may take.
//
// Metrics and health are open to whoever can connect. All else takes or shows profiles, which are as confidential as the
// memory of the processes: it needs a token, a client certificate, or a Unix socket that only its owner can open.
package web

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Config says where a Server listens and whom it trusts.
type Config struct {
	// Listen is HOST:PORT, or unix:PATH.
	Listen string
	// DataDir has the file "token", which is made where there is none, unless TokenFile is given.
	DataDir string
	// TokenFile is the path of a file with a token of the administrator's own.
	TokenFile string
	// InsecureLoopback asks nobody for a token. It is for loopback addresses.
	InsecureLoopback bool
	TLS              TLS
	// Hosts are names that clients may call the server by, besides IP addresses, localhost, and the name in Listen.
	Hosts []string
}

// TLS names files in PEM format. They are read again when they change.
type TLS struct {
	Cert, Key string
	ClientCA  string // clients need a certificate that one of these signed; it replaces the token
}

const (
	unixPrefix = "unix:"
	tokenName  = "token"
	localhost  = "localhost"
)

// Check finds contradictions. It reads no file and resolves no name.
func (c *Config) Check() error {
	if path, ok := strings.CutPrefix(c.Listen, unixPrefix); ok {
		return c.checkUnix(path)
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil || port == "" || strings.ContainsAny(host, "/ ") {
		return fmt.Errorf("listen %q: give HOST:PORT, as in 127.0.0.1:6061, or unix:/PATH", c.Listen)
	}
	if err := errors.Join(c.TLS.check(), c.checkToken()); err != nil {
		return err
	}
	if isLoopback(host) || c.TLS.ClientCA != "" {
		return nil
	}
	return c.checkPublic()
}

func (c *Config) checkUnix(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("listen %q: the path of a Unix socket is absolute: unix:/PATH", c.Listen)
	case c.TLS != TLS{}:
		return fmt.Errorf("listen %q: a Unix socket has no TLS: remove cert, key and client_ca, or listen on HOST:PORT", c.Listen)
	case c.TokenFile != "" || c.InsecureLoopback:
		return fmt.Errorf("listen %q: a Unix socket is for its owner, who needs no token: remove token_file and insecure_loopback", c.Listen)
	}
	return nil
}

func (c *Config) checkToken() error {
	switch {
	case c.InsecureLoopback && c.TokenFile != "":
		return errors.New("insecure_loopback asks nobody for a token, and token_file has one: remove one of them")
	case c.TLS.ClientCA != "" && (c.InsecureLoopback || c.TokenFile != ""):
		return errors.New("client_ca asks for certificates in place of a token: remove it, or token_file and insecure_loopback")
	case c.DataDir == "" && c.TokenFile == "" && !c.InsecureLoopback && c.TLS.ClientCA == "":
		return errors.New("there is no data directory to keep a token in: give token_file")
	}
	return nil
}

// checkPublic: whoever listens to the network has to say so in some more way than by the address.
func (c *Config) checkPublic() error {
	switch {
	case c.InsecureLoopback:
		return fmt.Errorf("listen %q: insecure_loopback is for loopback addresses only, and others can reach this one: "+
			"listen on 127.0.0.1, or remove insecure_loopback and give token_file or tls with client_ca", c.Listen)
	case c.TokenFile == "":
		return fmt.Errorf("listen %q: others can reach this address: give token_file (with a token of 16 characters at least), "+
			"or tls with cert, key and client_ca, or listen on 127.0.0.1 or a Unix socket", c.Listen)
	}
	return nil
}

func (t TLS) check() error {
	switch {
	case (t.Cert == "") != (t.Key == ""):
		return errors.New("tls: cert and key need each other")
	case t.ClientCA != "" && t.Cert == "":
		return errors.New("tls: client_ca needs cert and key, too")
	}
	return nil
}

// isLoopback: no name but localhost is taken for loopback, whatever it may resolve to.
func isLoopback(host string) bool {
	if strings.EqualFold(host, localhost) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// knows says whether clients may call the server by name.
func (c *Config) knows(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if _, err := netip.ParseAddr(name); err == nil || strings.EqualFold(name, localhost) {
		return true
	}
	own, _, _ := net.SplitHostPort(c.Listen)
	return slices.ContainsFunc(append(c.Hosts, own), func(h string) bool { return h != "" && strings.EqualFold(h, name) })
}
