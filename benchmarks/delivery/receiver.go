package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// protocols are the destinations that have a server.
var protocols = []string{"pyroscope", "ingest", "parca", "otlp", "otlphttp"}

// overGRPC says which of them.
var overGRPC = map[string]bool{"parca": true, "otlp": true}

// receiver is the process that takes what is sent.
type receiver struct {
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Scanner
	addresses map[string]string // HOST:PORT by protocol
}

const receiverVariable = "PPROFD_DELIVERY_RECEIVER"

func startReceiver(ctx context.Context) (*receiver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &receiver{cmd: exec.CommandContext(ctx, self)}
	r.cmd.Env = append(os.Environ(), receiverVariable+"=1")
	r.cmd.Stderr = os.Stderr
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	r.out = bufio.NewScanner(out)
	return r, r.read(&r.addresses)
}

func (r *receiver) read(v any) error {
	if !r.out.Scan() {
		return fmt.Errorf("the receiver does not answer: %w", errors.Join(r.out.Err(), io.EOF))
	}
	return json.Unmarshal(r.out.Bytes(), v)
}

// counted is what came, in bytes since the start.
func (r *receiver) counted() (bytes map[string]int64, err error) {
	if _, err := fmt.Fprintln(r.in); err != nil {
		return nil, err
	}
	return bytes, r.read(&bytes)
}

func (r *receiver) stop() {
	r.in.Close()
	_ = r.cmd.Wait() // nothing to be done about it
}

// receive is the main function of the receiver: for each line it answers with its numbers.
func receive(in io.Reader, out io.Writer) error {
	addresses, bytes := map[string]string{}, map[string]*atomic.Int64{}
	for _, name := range protocols {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		bytes[name] = new(atomic.Int64)
		addresses[name] = l.Addr().String()
		go serve(counter{l, bytes[name]}, overGRPC[name])
	}
	to := json.NewEncoder(out)
	if err := to.Encode(addresses); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		now := map[string]int64{}
		for name, n := range bytes {
			now[name] = n.Load()
		}
		if err := to.Encode(now); err != nil {
			return err
		}
	}
	return lines.Err()
}

// serve says yes to everything, by an empty message, as long as the process lives.
func serve(l net.Listener, isGRPC bool) {
	if isGRPC {
		s := grpc.NewServer(grpc.ForceServerCodecV2(emptyCodec{}), grpc.MaxRecvMsgSize(64<<20), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			var m struct{}
			if err := s.RecvMsg(&m); err != nil {
				return err
			}
			return s.SendMsg(&m)
		}))
		_ = s.Serve(l)
		return
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/ingest":
		case "/v1development/profiles":
			w.Header().Set("Content-Type", "application/x-protobuf")
		default:
			w.Header().Set("Content-Type", "application/proto")
		}
	})}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	_ = s.Serve(l)
}

// emptyCodec reads nothing, and writes an empty message.
type emptyCodec struct{}

var _ encoding.CodecV2 = emptyCodec{}

func (emptyCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }
func (emptyCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (emptyCodec) Name() string                         { return "empty" }

// counter counts what is read from connections.
type counter struct {
	net.Listener
	n *atomic.Int64
}

func (c counter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return counted{conn, c.n}, nil
}

type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}
