package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(t *testing.T, serial int64, use x509.ExtKeyUsage) (cert, key []byte) {
	t.Helper()
	k := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
	}, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})
}

func (a *authority) client(t *testing.T, serverCA *authority) *http.Transport {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(serverCA.pem)
	c := &tls.Config{RootCAs: pool}
	if a != nil {
		pair, err := tls.X509KeyPair(a.sign(t, 9, x509.ExtKeyUsageClientAuth))
		if err != nil {
			t.Fatal(err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	tr := &http.Transport{TLSClientConfig: c}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func tlsConfig(t *testing.T, ca *authority) TLS {
	t.Helper()
	dir := t.TempDir()
	cert, key := ca.sign(t, 1, x509.ExtKeyUsageServerAuth)
	return TLS{Cert: write(t, dir+"/cert", cert), Key: write(t, dir+"/key", key), ClientCA: write(t, dir+"/ca", ca.pem)}
}

func TestClientCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	s, _ := start(t, Config{Listen: "0.0.0.0:0", TLS: tlsConfig(t, ca)}, Options{})
	_, port, _ := net.SplitHostPort(s.Addr().String())
	at := "https://127.0.0.1:" + port
	if a := getBy(t, ca.client(t, ca), at+"/debug/pprof/cmdline"); a.code != 200 {
		t.Errorf("%+v", a)
	}
	none := (*authority)(nil).client(t, ca)
	if a := getBy(t, none, at+"/debug/pprof/cmdline"); a.code != 401 || !strings.Contains(a.body, "client certificate") {
		t.Errorf("without: %+v", a)
	}
	if a := getBy(t, none, at+"/metrics"); a.code != 200 {
		t.Errorf("without: %+v", a)
	}
	if a := getBy(t, other.client(t, ca), at+"/metrics"); a.code != 0 || !strings.Contains(a.body, "tls: ") {
		t.Errorf("of another authority: %+v", a)
	}
	if a := getBy(t, http.DefaultTransport, "http://127.0.0.1:"+port+"/metrics"); a.code != 400 {
		t.Errorf("not encrypted: %+v", a)
	}
}

func TestCertificatesAreExchanged(t *testing.T) {
	ca, c := newAuthority(t), loopback(t)
	c.TLS = tlsConfig(t, ca)
	c.TLS.ClientCA = ""
	s, _ := start(t, c, Options{})
	serial := func() int64 {
		conn, err := tls.Dial("tcp", s.Addr().String(), (*authority)(nil).client(t, ca).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Error(n)
	}
	cert, key := ca.sign(t, 2, x509.ExtKeyUsageServerAuth)
	write(t, c.TLS.Cert, cert)
	if n := serial(); n != 1 {
		t.Errorf("half of it is there: %d", n)
	}
	write(t, c.TLS.Key, key)
	if n := serial(); n != 2 {
		t.Errorf("all is there: %d", n)
	}
	write(t, c.TLS.Cert, []byte("x"))
	if n := serial(); n != 2 {
		t.Errorf("it is broken: %d", n)
	}
	if _, err := New(c, Options{}); err == nil || !strings.Contains(err.Error(), c.TLS.Cert) {
		t.Errorf("%v", err)
	}
}
