package otlp

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // as servers have it

	"github.com/pprofd/pprofd/export"
)

// window is one of 200 processes: 190 samples in 100 stacks of 20 frames each, as 19 Hz give in 10 seconds, encoded as in the spool.
func window(b *testing.B) (list []*export.Profile) {
	for i := range 200 {
		p := &export.Profile{Kind: "cpu", Service: "shop", PID: i + 1, Labels: list20(), Data: many(100)}
		if _, err := p.Encode(); err != nil {
			b.Fatal(err)
		}
		p.Data = nil
		list = append(list, p)
	}
	return list
}

func list20() []export.Label {
	return list("cgroup", "/system.slice/shop.service", "comm", "shop", "container_id", "0123456789abcdef", "container_image", "registry/shop:1.2", "exe", "/usr/bin/shop",
		"go_version", "go1.26.7", "host", "host-1", "module", "example.org/shop", "module_version", "v1.2.3", "pid", "4242", "systemd_unit", "shop.service", "user", "shop")
}

// BenchmarkWindow sends a window of 200 processes to a server that only reads. cpu-ms/op is what both of them need; wire-B/profile
// is what the client sends, headers included.
func BenchmarkWindow(b *testing.B) {
	list := window(b)
	for _, protocol := range protocols {
		b.Run(protocol, func(b *testing.B) {
			var wire atomic.Int64
			endpoint := sink(b, protocol, &wire)
			x, err := New(Options{Endpoint: endpoint, Protocol: protocol})
			if err != nil {
				b.Fatal(err)
			}
			defer x.Close()
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				for _, p := range list {
					if err := x.Export(context.Background(), p); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric((cpu(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(wire.Load())/float64(b.N*len(list)), "wire-B/profile")
			b.ReportMetric(float64(len(list[0].Encoded.Gzip)), "pprof-B/profile")
		})
	}
}

// BenchmarkRequest makes one request, which is not sent.
func BenchmarkRequest(b *testing.B) {
	p := window(b)[0]
	o := &Options{}
	b.ReportAllocs()
	for b.Loop() {
		c, err := newConversion(p, o)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.request(c.d.Sample, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sink is a server that takes everything, and counts what it reads.
func sink(b *testing.B, protocol string, wire *atomic.Int64) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	counted := &countedListener{l, wire}
	done := make(chan struct{})
	if protocol == "http" {
		s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", protobuf)
		})}
		go func() { defer close(done); _ = s.Serve(counted) }()
		b.Cleanup(func() { _ = s.Close(); <-done })
		return "http://" + l.Addr().String()
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.profiles.v1development.ProfilesService",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var request []byte
			return []byte{}, decode(&request)
		}}},
	}, nil)
	go func() { defer close(done); _ = s.Serve(counted) }()
	b.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

type countedListener struct {
	net.Listener
	n *atomic.Int64
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countedConn{c, l.n}, err
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}
