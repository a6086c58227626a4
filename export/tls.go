package export

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLS says how connections to a destination are secured. The zero value trusts the authorities that the system trusts.
type TLS struct {
	CA                 string // file of certificates (PEM) that are trusted instead of the system's
	Cert, Key          string // files of the client's own certificate and its key (PEM); both or none
	ServerName         string // that the server's certificate has to be for, where it is not the address
	InsecureSkipVerify bool   // whoever answers is believed
}

// Config reads the files. The client's certificate is read again for each connection, since such are often short-lived.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("tls: cert and key belong together: give both or none")
	}
	if t.CA != "" {
		pool, err := readPool(t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	if t.Cert == "" {
		return c, nil
	}
	if _, err := t.pair(); err != nil {
		return nil, err
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.pair() }
	return c, nil
}

func (t TLS) pair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("tls: cert %s, key %s: %w", t.Cert, t.Key, err)
	}
	return &pair, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tls: ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: ca %s: there is no certificate in it (PEM is wanted)", path)
	}
	return pool, nil
}
