package otlp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
)

func TestEndpoint(t *testing.T) {
	ca := export.TLS{CA: "/ca"}
	for _, c := range []struct {
		o    Options
		want server
		err  string
	}{
		{o: Options{Endpoint: "collector:4317"}, want: server{host: "collector:4317"}},
		{o: Options{Endpoint: "collector:4317", Insecure: true}, want: server{host: "collector:4317", plain: true}},
		{o: Options{Endpoint: "localhost:4317"}, want: server{host: "localhost:4317", plain: true}},
		{o: Options{Endpoint: "127.0.0.1:4317"}, want: server{host: "127.0.0.1:4317", plain: true}},
		{o: Options{Endpoint: "[::1]:4317"}, want: server{host: "[::1]:4317", plain: true}},
		{o: Options{Endpoint: "[2001:db8::1]:4317"}, want: server{host: "[2001:db8::1]:4317"}},
		{o: Options{Endpoint: "localhost:4317", TLS: ca}, want: server{host: "localhost:4317"}},
		{o: Options{Endpoint: "http://collector:4318"}, want: server{host: "collector:4318", plain: true}},
		{o: Options{Endpoint: "https://collector:4318/"}, want: server{host: "collector:4318"}},
		{o: Options{Endpoint: "https://collector/a/b/", TLS: ca}, want: server{host: "collector:443", path: "/a/b"}},
		{o: Options{Endpoint: "http://[::1]"}, want: server{host: "[::1]:80", plain: true}},
		{o: Options{Endpoint: ""}, err: "HOST:PORT"},
		{o: Options{Endpoint: "collector"}, err: "HOST:PORT"},
		{o: Options{Endpoint: ":4317"}, err: "HOST:PORT"},
		{o: Options{Endpoint: "collector:"}, err: "HOST:PORT"},
		{o: Options{Endpoint: "ftp://collector"}, err: "http://HOST:PORT"},
		{o: Options{Endpoint: "http://"}, err: "http://HOST:PORT"},
		{o: Options{Endpoint: "http://collector?x=y"}, err: "http://HOST:PORT"},
		{o: Options{Endpoint: "https://me:hidden@collector"}, err: "http://HOST:PORT"},
		{o: Options{Endpoint: "http://collector:4318", TLS: ca}, err: "write https://"},
	} {
		got, err := c.o.server()
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%+v: %+v, %v", c.o, got, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hidden")):
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"a path with gRPC": {Options{Endpoint: "https://collector/a"}, "protocol http"},
		"another protocol": {Options{Endpoint: "collector:1", Protocol: "udp"}, "grpc and http"},
		"no CA":            {Options{Endpoint: "collector:1", TLS: export.TLS{CA: "/nowhere/ca.pem"}}, "/nowhere/ca.pem"},
		"no CA (http)":     {Options{Endpoint: "collector:1", Protocol: "http", TLS: export.TLS{CA: "/nowhere/ca.pem"}}, "/nowhere/ca.pem"},
		"no address":       {Options{Protocol: "http"}, "HOST:PORT"},
	} {
		if _, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewMetrics(c.o, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s (metrics): %v", name, err)
		}
	}
}

// pki has the files of an authority, of a server 127.0.0.1 and of a client.
type pki struct {
	dir    string
	config *tls.Config // of a server that wants the client's certificate
}

func newPKI(t *testing.T) pki {
	t.Helper()
	p := pki{dir: t.TempDir()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(p.path(name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(p.path("cert"), p.path("key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	p.config = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	return p
}

func (p pki) path(name string) string { return filepath.Join(p.dir, name) }

// TestTLS: who is believed, and who the server believes.
func TestTLS(t *testing.T) {
	p := newPKI(t)
	open := fake.Start(t, fake.Options{TLS: p.config})
	closed := p.config.Clone()
	closed.ClientAuth = tls.RequireAndVerifyClientCert
	mutual := fake.Start(t, fake.Options{TLS: closed})
	plain := fake.Start(t, fake.Options{})
	for name, c := range map[string]struct {
		s    *fake.Server
		tls  export.TLS
		fine bool
	}{
		"authority":             {s: open, tls: export.TLS{CA: p.path("cert")}, fine: true},
		"unknown authority":     {s: open, tls: export.TLS{ServerName: "127.0.0.1"}},
		"unverified":            {s: open, tls: export.TLS{InsecureSkipVerify: true}, fine: true},
		"another name":          {s: open, tls: export.TLS{CA: p.path("cert"), ServerName: "collector"}},
		"client's certificate":  {s: mutual, tls: export.TLS{CA: p.path("cert"), Cert: p.path("cert"), Key: p.path("key")}, fine: true},
		"no client certificate": {s: mutual, tls: export.TLS{CA: p.path("cert")}},
		"a server without TLS":  {s: plain, tls: export.TLS{CA: p.path("cert")}},
	} {
		for _, protocol := range protocols {
			endpoint := c.s.GRPC()
			if protocol == "http" {
				endpoint = "https" + strings.TrimPrefix(strings.TrimPrefix(c.s.HTTP(), "https"), "http")
			}
			x, err := New(Options{Endpoint: endpoint, Protocol: protocol, TLS: c.tls, Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			n := len(c.s.Taken())
			err = x.Export(t.Context(), one())
			switch {
			case c.fine && (err != nil || len(c.s.Taken()) != n+1):
				t.Errorf("%s, %s: %v", name, protocol, err)
			case !c.fine:
				if e := export.RetryOf(err); e == nil || e.Retry != export.Later || len(c.s.Taken()) != n {
					t.Errorf("%s, %s: %v", name, protocol, err)
				}
			}
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestPlainClient: to a server with TLS, nothing is sent in the clear by mistake, and it says so.
func TestPlainClient(t *testing.T) {
	s := fake.Start(t, fake.Options{TLS: newPKI(t).config})
	for _, protocol := range protocols {
		endpoint := s.GRPC()
		if protocol == "http" {
			endpoint = "http" + strings.TrimPrefix(s.HTTP(), "https")
		}
		x, err := New(Options{Endpoint: endpoint, Protocol: protocol, Timeout: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Export(t.Context(), one()); err == nil || len(s.Taken()) != 0 {
			t.Errorf("%s: %v", protocol, err)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestHeadersAndToken: both are sent, and a token that changes counts at once.
func TestHeadersAndToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old\n")
	s := fake.Start(t, fake.Options{Headers: map[string]string{"authorization": "Bearer good", "x-tenant": "a"}})
	for _, protocol := range protocols {
		o := Options{Protocol: protocol, BearerTokenFile: file, Headers: map[string]string{"X-Tenant": "a"}}
		x := exporter(t, s, o)
		write("old\n")
		err := x.Export(t.Context(), one())
		if e := export.RetryOf(err); e == nil || e.Retry != export.Later || e.Reason != "unauthorized" || strings.Contains(err.Error(), "old") && !strings.Contains(err.Error(), `"Bearer old"`) {
			t.Errorf("%s: %v", protocol, err)
		}
		write("good\n")
		if err := x.Export(t.Context(), one()); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		err = x.Export(t.Context(), one())
		if e := export.RetryOf(err); e == nil || e.Retry != export.Later || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: without a file: %v", protocol, err)
		}
	}
}

// TestEnvironment: what SDKs are told by variables is not meant for the agent.
func TestEnvironment(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=wrong")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=wrong")
	s := fake.Start(t, fake.Options{Headers: map[string]string{"x-tenant": "a"}})
	for _, protocol := range protocols {
		o := Options{Protocol: protocol, Headers: map[string]string{"x-tenant": "a"}}
		if err := exporter(t, s, o).Export(t.Context(), one()); err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		m := metrics(t, s, o, registry(t))
		if err := m.Send(context.Background()); err != nil {
			t.Errorf("%s: metrics: %v", protocol, err)
		}
	}
	p, ok := s.Metric("things_total", "kind", "a")
	if !ok || p.Resource["service.name"] != "pprofd" {
		t.Errorf("%+v", p)
	}
}
