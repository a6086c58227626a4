package agent

import (
	"crypto/tls"
	"encoding/pem"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestServersTLS: a certificate that nobody is known to have signed is told of; profiles wait until someone says who it was.
func TestServersTLS(t *testing.T) {
	signed := httptest.NewTLSServer(nil)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	with := &tls.Config{Certificates: signed.TLS.Certificates, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	signed.Close()
	for name := range receivers(t, fastNow) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDelivery(t, 100)
			r := receivers(t, d.servers.clock)[name]
			r.secure(with, "")
			r.listen(t)
			d.configure(r.section())
			d.window()
			d.await("it fails", func() bool { return d.stats().Failures > 1 })
			if e := d.stats().LastError; !strings.Contains(e, "certificate") {
				t.Errorf("%s", e)
			}
			r.silence()
			r.secure(with, ca)
			r.listen(t)
			d.configure(r.section())
			if st := d.settled(r); len(st.Dropped) > 0 || st.Delivered.Profiles != 3 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestServersDiskFull: what finds no room on the disk, of which nothing is the spool's, is delivered from memory, and put on the disk when
// there is room again.
func TestServersDiskFull(t *testing.T) {
	needs.Root(t)
	d := newDelivery(t, 100)
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=128k,mode=0700"); err != nil {
		needs.Missing(t, "mount", "CAP_SYS_ADMIN, to mount a small tmpfs: "+err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(mount, syscall.MNT_DETACH) })
	d.dir = filepath.Join(mount, "spool")
	r := receivers(t, d.servers.clock)["pyroscope"]
	d.configure(r.section())
	fill := filepath.Join(mount, "fill")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	for range 5 {
		d.fill()
	}
	st, _ := d.servers.stats()
	if text := d.log.String(); st.Memory == 0 || st.Failures == 0 || !strings.Contains(text, "no space left") || strings.Contains(text, "on disk again") {
		t.Errorf("%+v\n%s", st, d.log)
	}
	r.listen(t)
	d.settled(r)
	r.silence()
	d.fill()
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	d.window()
	if st, _ := d.servers.stats(); st.Memory != 0 || !strings.Contains(d.log.String(), "kept on disk again") {
		t.Errorf("%+v\n%s", st, d.log)
	}
	r.listen(t)
	d.settled(r)
}

// fill is a window that the disk may not take.
func (d *delivery) fill() {
	wall, _ := d.servers.clock()
	list, total := windowOf(d.windows, 3, wall)
	for _, p := range list {
		if err := d.servers.take(p); err != nil {
			d.t.Error(err)
		}
	}
	_ = d.servers.commit() // it is offered nevertheless
	d.windows++
	d.total += total
}

// TestServersCorruptSpool: a byte is wrong in each batch, somewhere. What can still be read arrives, the rest is counted.
func TestServersCorruptSpool(t *testing.T) {
	d := newDelivery(t, 100)
	r := receivers(t, d.servers.clock)["parca"]
	d.configure(r.section())
	for range 60 {
		d.window()
	}
	d.end()
	batches, err := filepath.Glob(filepath.Join(d.dir, "*.spool"))
	if err != nil || len(batches) != 60 {
		t.Fatalf("%d batches, %v", len(batches), err)
	}
	for _, path := range batches {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.begin()
	r.listen(t)
	d.configure(r.section())
	st := d.settled(r)
	if n := st.Dropped["corrupt"].Profiles; n < 60 || n >= 180 || st.Delivered.Profiles == 0 {
		t.Errorf("%+v", st)
	}
}
