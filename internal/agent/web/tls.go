package web

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// listener encrypts l. It fails where the files are wrong now; later, what was right last remains.
func (t TLS) listener(l net.Listener) (net.Listener, error) {
	k := &keys{files: t}
	if _, err := k.current(); err != nil {
		l.Close()
		return nil, err
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return k.current() },
	}), nil
}

// keys are what the files said when they were last whole.
type keys struct {
	files TLS

	mu     sync.Mutex
	read   [3]version
	config *tls.Config
}

// version tells whether a file was changed. Secrets that Kubernetes mounts are exchanged by a symbolic link.
type version struct {
	mtime time.Time
	size  int64
}

func versionOf(name string) (v version) {
	if st, err := os.Stat(name); name != "" && err == nil {
		v = version{st.ModTime(), st.Size()}
	}
	return v
}

// current fails only where there has never been anything right.
func (k *keys) current() (*tls.Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := [3]version{versionOf(k.files.Cert), versionOf(k.files.Key), versionOf(k.files.ClientCA)}
	if k.config != nil && now == k.read {
		return k.config, nil
	}
	c, err := k.files.load()
	if err == nil {
		k.config, k.read = c, now
	}
	if k.config == nil {
		return nil, err
	}
	return k.config, nil
}

func (t TLS) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("tls: certificate %s, key %s: %w", t.Cert, t.Key, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	if t.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("tls: client_ca: %w", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven // metrics are open without one
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: client_ca %s: there is no certificate in it (PEM is wanted)", t.ClientCA)
	}
	return c, nil
}
