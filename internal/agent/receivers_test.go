package agent

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"google.golang.org/grpc/codes"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/spool"
	fakeotlp "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
	fakeparca "github.com/pprofd/pprofd/internal/testprog/fakes/parca"
	fakepyroscope "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

// receiver is a server on a real socket, as strict as the real one.
type receiver interface {
	listen(t *testing.T)                               // begins to answer, again at the same address
	silence()                                          // until then nobody is there
	section() string                                   // of a configuration
	fail(f fault, n int) (taken bool)                  // what the next n requests meet; taken: the profile is kept all the same
	got() (sums map[string]int64, came map[string]int) // samples, and how often they came, by labels, kind and time
	overGRPC() bool
	secure(c *tls.Config, ca string) // the server has TLS, whose certificate the file ca signs; "": clients do not know
}

// fault is what happens to requests.
type fault string

// Faults besides statuses ("400") and names of gRPC's codes.
const (
	hangs   fault = "hangs"
	slow    fault = "1 byte/s"
	resets  fault = "reset in mid-body"
	garbage fault = "garbage"
	loses   fault = "lost answer"
)

var grpcCodes = map[fault]codes.Code{
	"Canceled": codes.Canceled, "Unknown": codes.Unknown, "InvalidArgument": codes.InvalidArgument, "DeadlineExceeded": codes.DeadlineExceeded,
	"NotFound": codes.NotFound, "AlreadyExists": codes.AlreadyExists, "PermissionDenied": codes.PermissionDenied, "ResourceExhausted": codes.ResourceExhausted,
	"FailedPrecondition": codes.FailedPrecondition, "Aborted": codes.Aborted, "OutOfRange": codes.OutOfRange, "Unimplemented": codes.Unimplemented,
	"Internal": codes.Internal, "Unavailable": codes.Unavailable, "DataLoss": codes.DataLoss, "Unauthenticated": codes.Unauthenticated,
}

// wire is how receivers are reached.
type wire struct {
	tls *tls.Config
	ca  string
}

func (w *wire) secure(c *tls.Config, ca string) { w.tls, w.ca = c, ca }

// url is an address, and options of TLS.
func (w *wire) url(addr string) string {
	switch {
	case w.tls == nil:
		return "'http://" + addr + "'"
	case w.ca == "":
		return "'https://" + addr + "'"
	}
	return "'https://" + addr + "', tls: {ca: " + w.ca + "}"
}

// statusOf is 0 for what is none.
func statusOf(f fault) int {
	n, _ := strconv.Atoi(string(f))
	return n
}

// receivers of all kinds, by name.
func receivers(t *testing.T, clock spool.Clock) map[string]receiver {
	now := func() time.Time { wall, _ := clock(); return wall }
	return map[string]receiver{
		"pyroscope": newPyroscope(t, "push", now),
		"ingest":    newPyroscope(t, "ingest", now),
		"parca":     &parcaReceiver{addr: freePort(t)},
		"otlp":      &otlpReceiver{grpc: freePort(t), http: freePort(t)},
		"otlphttp":  &otlpReceiver{grpc: freePort(t), http: freePort(t), overHTTP: true},
	}
}

// freePort is one at which nobody listens, and which no connection is given by the kernel (net.ipv4.ip_local_port_range).
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("there is no free port")
	return ""
}

type pyroscopeReceiver struct {
	wire
	*fakepyroscope.Server
	api string
	o   fakepyroscope.Options
}

func newPyroscope(t *testing.T, api string, now func() time.Time) *pyroscopeReceiver {
	r := &pyroscopeReceiver{api: api, o: fakepyroscope.Options{Addr: freePort(t), Limits: fakepyroscope.Limits{Rate: -1}, Now: now}}
	r.Server = fakepyroscope.New(r.o)
	return r
}

func (r *pyroscopeReceiver) secure(c *tls.Config, ca string) {
	r.wire.secure(c, ca)
	r.o.TLS = c
	r.Server = fakepyroscope.New(r.o)
}

func (r *pyroscopeReceiver) listen(t *testing.T) {
	t.Helper()
	if err := r.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
}

func (r *pyroscopeReceiver) silence() { r.Close() }

func (*pyroscopeReceiver) overGRPC() bool { return false }

func (r *pyroscopeReceiver) section() string {
	return fmt.Sprintf("pyroscope: {url: %s, api: %s, name: server}", r.url(r.Addr()), r.api)
}

func (r *pyroscopeReceiver) fail(f fault, n int) (taken bool) {
	what := fakepyroscope.Fault{}
	switch f {
	case hangs:
		what.What = fakepyroscope.Hang
	case slow:
		what.What = fakepyroscope.SlowRead
	case resets:
		what.What, what.After = fakepyroscope.Reset, 20
	case garbage:
		what.What, what.Take = fakepyroscope.Garbage, true
	case loses:
		what.What, what.Take = fakepyroscope.ResetAnswer, true
	default:
		what.Status = statusOf(f)
	}
	for range n {
		r.Fail(what)
	}
	return what.Take
}

func (r *pyroscopeReceiver) got() (map[string]int64, map[string]int) {
	sums, came := map[string]int64{}, map[string]int{}
	for _, s := range r.Series(false) {
		if strings.Contains(s.Type, ":samples:count:") {
			sums[s.ID()] = s.Total
			came[s.ID()]++
		}
	}
	return sums, came
}

// parcaReceiver is a new server each time that it listens; what came stays.
type parcaReceiver struct {
	wire
	addr string

	mu   sync.Mutex
	all  []*fakeparca.Server
	last *fakeparca.Server
}

func (r *parcaReceiver) listen(t *testing.T) {
	t.Helper()
	s := fakeparca.Start(t, fakeparca.Options{Addr: r.addr, TLS: r.tls})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.all = s, append(r.all, s)
}

func (r *parcaReceiver) silence() { r.last.Stop() }

func (*parcaReceiver) overGRPC() bool { return true }

func (r *parcaReceiver) section() string {
	return fmt.Sprintf("parca: {address: %s, name: server}", r.url(r.addr))
}

func (r *parcaReceiver) fail(f fault, n int) (taken bool) {
	below := map[fault]fakeparca.Fault{hangs: fakeparca.Hang, slow: fakeparca.Slow, resets: fakeparca.Reset, garbage: fakeparca.Garbage, loses: fakeparca.Lose}
	if what, ok := below[f]; ok {
		began := r.last.Requests() + r.last.Met()
		r.last.Fault(what)
		go heal(r.last, f, n, began)
		return true
	}
	r.last.Refuse(n, grpcCodes[f], "so it was ordered")
	return false
}

// heal ends a fault once n requests have met it, however late they come.
func heal(s *fakeparca.Server, f fault, n, began int) {
	defer s.Fault(fakeparca.None) // cuts off what is on its way
	var late time.Time
	for giveUp := time.Now().Add(time.Minute); time.Now().Before(giveUp); time.Sleep(time.Millisecond) {
		met := s.Requests() + s.Met() - began
		if met > 0 && late.IsZero() {
			late = time.Now().Add(time.Duration(n) * exportTimeout * 2)
		}
		switch {
		case f == slow: // one connection, for as long as so many requests take
			if !late.IsZero() && time.Now().After(late) {
				return
			}
		case f == resets && met < 3*n: // connections: gRPC tries again by itself what nobody can have begun
		case met >= n:
			return
		}
	}
}

func (r *parcaReceiver) got() (map[string]int64, map[string]int) {
	sums, came := map[string]int64{}, map[string]int{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all {
		for _, p := range s.Stored() {
			id := fmt.Sprint(p.Name, p.Labels, p.TimeNanos)
			sums[id] = p.Sum("samples")
			came[id]++
		}
	}
	return sums, came
}

// otlpReceiver is, too.
type otlpReceiver struct {
	wire
	grpc, http string
	overHTTP   bool

	mu   sync.Mutex
	all  []*fakeotlp.Server
	last *fakeotlp.Server
}

func (r *otlpReceiver) listen(t *testing.T) {
	t.Helper()
	s := fakeotlp.Start(t, fakeotlp.Options{GRPC: r.grpc, HTTP: r.http, TLS: r.tls})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.all = s, append(r.all, s)
}

func (r *otlpReceiver) silence() { r.last.Stop() }

func (r *otlpReceiver) overGRPC() bool { return !r.overHTTP }

func (r *otlpReceiver) section() string {
	if r.overHTTP {
		return fmt.Sprintf("otlp: {endpoint: %s, protocol: http, experimental: true, metrics: false, name: server}", r.url(r.http))
	}
	return fmt.Sprintf("otlp: {endpoint: %s, experimental: true, metrics: false, name: server}", r.url(r.grpc))
}

func (r *otlpReceiver) fail(f fault, n int) (taken bool) {
	what := fakeotlp.Fault{Message: "so it was ordered"}
	switch f {
	case hangs:
		what.Hang = true
	case slow:
		what.Slow = true
	case resets:
		what.Reset = true
	case garbage:
		what.Garbage = true
	case loses:
		what.Lost = true
	default:
		what.Code, what.Status = grpcCodes[f], statusOf(f)
	}
	for range n {
		r.last.Inject(what)
	}
	return f == garbage || f == loses || f == slow // it is the answer that is slow
}

func (r *otlpReceiver) got() (map[string]int64, map[string]int) {
	sums, came := map[string]int64{}, map[string]int{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all {
		for _, p := range s.Profiles() {
			if p.Type == "samples" {
				id := fmt.Sprint(p.Resource, p.Time.UnixNano())
				sums[id] = p.Sum
				came[id] += p.Times
			}
		}
	}
	return sums, came
}

// timer is a clock of its own, which is faster than the real one and skips hours.
type timer struct {
	origin time.Time
	speed  int

	mu      sync.Mutex
	skipped time.Duration
	waiting []chan time.Time
}

func newTimer(speed int) *timer { return &timer{origin: time.Now(), speed: speed} }

func (c *timer) read() (time.Time, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := c.skipped + time.Duration(c.speed)*time.Since(c.origin)
	return c.origin.Add(passed), passed
}

// after may come early: who waits looks at the clock.
func (c *timer) after(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.waiting = append(c.waiting, ch)
	time.AfterFunc(d/time.Duration(c.speed), func() { wake(ch) })
	return ch
}

func wake(ch chan time.Time) {
	select {
	case ch <- time.Now():
	default:
	}
}

// skip: so much time passes at once.
func (c *timer) skip(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped += d
	for _, ch := range c.waiting {
		wake(ch)
	}
	c.waiting = nil
}

// windowOf makes the profiles of a window: of some processes, with sums that no other window has.
func windowOf(number, processes int, at time.Time) (list []*export.Profile, total int64) {
	for i := range processes {
		n := int64(1 + number*processes + i)
		f := &profile.Function{ID: 1, Name: fmt.Sprintf("main.work%d", i), Filename: "main.go"}
		m := &profile.Mapping{ID: 1, Start: 0x400000, Limit: 0x500000, File: "/bin/test", BuildID: "abcdef", HasFunctions: true}
		l := &profile.Location{ID: 1, Mapping: m, Address: 0x401000, Line: []profile.Line{{Function: f, Line: 1}}}
		list = append(list, &export.Profile{
			Kind: "cpu", PID: 100 + i, StartTicks: 1, Comm: "test", Service: "shop", Start: at, Duration: 10 * time.Second,
			Labels: []export.Label{{Name: "comm", Value: "test"}, {Name: "pid", Value: fmt.Sprint(100 + i)}},
			Data: &profile.Profile{
				SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
				PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 52631578, TimeNanos: at.UnixNano(), DurationNanos: 1e10,
				Mapping: []*profile.Mapping{m}, Function: []*profile.Function{f}, Location: []*profile.Location{l},
				Sample: []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{n, n * 52631578}}},
			},
		})
		total += n
	}
	return list, total
}

// lockedBuffer is a log that is read while others write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
