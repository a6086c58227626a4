package pyroscope

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

// window are profiles of 200 processes: each with 150 stacks of 25 frames, of 600 functions.
func window(b *testing.B, kind string, labelled bool) (all []*export.Profile) {
	b.Helper()
	at := time.Now()
	for pid := range 200 {
		m := newMaker(kind, at)
		m.manyOf(150, 25, 600)
		for i, s := range m.p.Sample {
			if labelled {
				s.Label = map[string][]string{"endpoint": {fmt.Sprint("/", i%8)}, "request": {fmt.Sprint(i)}}
			}
		}
		p := m.profile(kind)
		p.PID = pid + 1
		p.Labels = []export.Label{{Name: "host", Value: "h1"}, {Name: "pid", Value: fmt.Sprint(pid + 1)}, {Name: "exe", Value: "/usr/bin/prog"},
			{Name: "namespace", Value: "shop"}, {Name: "pod", Value: fmt.Sprint("shop-", pid)}, {Name: "container_name", Value: "app"}}
		all = append(all, encoded(b, p))
	}
	return all
}

// counting counts what comes over its connections.
type counting struct {
	net.Listener
	n *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{conn, c.n}, nil
}

type countingConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// BenchmarkWindow sends one profile of each of 200 processes, one after the other. With the sink, which reads and says that it is well, the
// CPU time is that of the sender and of half of a connection; with the fake, that of all which that does is in it.
func BenchmarkWindow(b *testing.B) {
	for _, c := range []struct {
		name, kind string
		labelled   bool
	}{{"cpu", "cpu", false}, {"cpu,labels", "cpu", true}, {"heap", "heap", false}} {
		all := window(b, c.kind, c.labelled)
		for _, api := range []string{APIPush, APIIngest} {
			b.Run(c.name+"/"+api+"/sink", func(b *testing.B) { measure(b, api, all, sinkHandler(api)) })
		}
		b.Run(c.name+"/push/fake", func(b *testing.B) {
			s := fake.New(fake.Options{Limits: fake.Limits{Rate: -1}})
			measure(b, APIPush, all, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s.ServeHTTP(w, r)
				s.Forget()
			}))
		})
	}
}

func sinkHandler(api string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the sender says what went wrong
		if api == APIPush {
			w.Header().Set("Content-Type", "application/proto")
		}
	})
}

func measure(b *testing.B, api string, all []*export.Profile, h http.Handler) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wire atomic.Int64
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		_ = srv.Serve(counting{l, &wire}) // until it is closed
		close(done)
	}()
	defer func() {
		srv.Close()
		<-done
	}()
	e := newExporter(b, Options{URL: "http://" + l.Addr().String(), API: api})
	send(b, e, all[0])
	wire.Store(0)
	begun := cpuTime(b)
	for b.Loop() {
		for _, p := range all {
			send(b, e, p)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-begun).Milliseconds())/float64(b.N), "CPU-ms/window")
	b.ReportMetric(float64(wire.Load())/float64(b.N*len(all)), "wire-B/profile")
	gzip := 0
	for _, p := range all {
		gzip += len(p.Encoded.Gzip)
	}
	b.ReportMetric(float64(gzip)/float64(len(all)), "gzip-B/profile")
}
