package export

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority signs certificates for 127.0.0.1 and example.test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", 1)
	return a
}

// sign writes NAME.pem and NAME.key.
func (a *authority) sign(name string, serial int64) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: a.cert == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		DNSNames: []string{"example.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	c, err = x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name string, b []byte) {
	if err := os.WriteFile(a.path(name), b, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// serve answers each connection with the serial number of the client's certificate, "none" without one.
func (a *authority) serve() (addr string) {
	pair, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequestClientCert,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answerSerial(c.(*tls.Conn))
		}
	}()
	a.t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func answerSerial(c *tls.Conn) {
	defer c.Close()
	if c.Handshake() != nil {
		return
	}
	answer := "none"
	if certs := c.ConnectionState().PeerCertificates; len(certs) > 0 {
		answer = certs[0].SerialNumber.String()
	}
	_, _ = io.WriteString(c, answer)
}

func ask(t *testing.T, addr string, config *tls.Config) (string, error) {
	t.Helper()
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	a.sign("server", 2)
	a.sign("client", 3)
	addr := a.serve()
	for name, c := range map[string]struct {
		options   TLS
		want, err string
	}{
		"an authority":              {TLS{CA: a.path("ca.pem")}, "none", ""},
		"the system's authorities":  {TLS{}, "", "certificate"},
		"another name":              {TLS{CA: a.path("ca.pem"), ServerName: "example.test"}, "none", ""},
		"a name that it is not for": {TLS{CA: a.path("ca.pem"), ServerName: "other.test"}, "", "other.test"},
		"anybody":                   {TLS{InsecureSkipVerify: true, ServerName: "other.test"}, "none", ""},
		"a client's certificate":    {TLS{CA: a.path("ca.pem"), Cert: a.path("client.pem"), Key: a.path("client.key")}, "3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := c.options.Config()
			if err != nil {
				t.Fatal(err)
			}
			got, err := ask(t, addr, config)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestTLSReadsANewCertificate(t *testing.T) {
	a := newAuthority(t)
	a.sign("server", 2)
	a.sign("client", 3)
	addr := a.serve()
	config, err := TLS{CA: a.path("ca.pem"), Cert: a.path("client.pem"), Key: a.path("client.key")}.Config()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, addr, config); err != nil || got != "3" {
		t.Errorf("%q, %v", got, err)
	}
	a.sign("client", 4)
	if got, err := ask(t, addr, config); err != nil || got != "4" {
		t.Errorf("after the change: %q, %v", got, err)
	}
}

func TestTLSRefuses(t *testing.T) {
	a := newAuthority(t)
	a.sign("client", 3)
	a.write("text", []byte("no certificate\n"))
	for want, options := range map[string]TLS{
		"belong together":     {Cert: a.path("client.pem")},
		"no certificate in":   {CA: a.path("text")},
		"no such file":        {CA: a.path("absent")},
		"private key does no": {Cert: a.path("client.pem"), Key: a.path("ca.key")},
	} {
		if _, err := options.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", options, err)
		}
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for _, c := range []struct{ content, want, err string }{
		{"s3cret", "s3cret", ""},
		{" s3cret with space\r\n", "s3cret with space", ""},
		{"", "", "is empty"},
		{"\n\n", "", "is empty"},
		{"s3cret\nmore", "", "more than one line"},
		{"s3cret" + strings.Repeat("x", maxSecret), "", "is larger"},
	} {
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSecret(path)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q, %v", got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), path)) {
			t.Errorf("the error tells the secret, or not the file: %v", err)
		}
	}
	if _, err := ReadSecret(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(pipe); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Error(err)
	}
}
