package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/export/queue"
	"github.com/pprofd/pprofd/export/spool"
	"github.com/pprofd/pprofd/internal/agent/config"
)

// exportTimeout of tests in which servers hang.
const exportTimeout = 400 * time.Millisecond

// delivery is what runs in the agent between a window and the servers, on a fast clock.
type delivery struct {
	t       *testing.T
	dir     string
	speed   int
	timeout time.Duration
	timer   *timer
	servers *servers
	log     *lockedBuffer
	windows int
	total   int64 // of all windows that are complete
}

func newDelivery(t *testing.T, speed int) *delivery {
	d := &delivery{t: t, timeout: 10 * time.Second, dir: filepath.Join(t.TempDir(), "spool"), speed: speed, log: new(lockedBuffer)}
	d.begin()
	t.Cleanup(func() {
		d.end()
		if t.Failed() {
			t.Logf("the log:\n%s", d.log)
		}
	})
	return d
}

func (d *delivery) begin() {
	d.timer = newTimer(d.speed)
	d.servers = newServers(slog.New(slog.NewTextHandler(d.log, nil)), "test", prometheus.NewRegistry())
	d.servers.clock, d.servers.after = d.timer.read, d.timer.after
}

func (d *delivery) end() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.servers.close(ctx); err != nil {
		d.t.Error(err)
	}
}

// parse is a configuration with short timeouts.
func (d *delivery) parse(text string) *config.Config {
	return parseServers(d.t, d.dir, text, d.timeout)
}

func parseServers(t testing.TB, dir, text string, timeout time.Duration) *config.Config {
	t.Helper()
	c, err := config.Parse("test", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	shorten(c, dir, timeout)
	return c
}

// shorten says where the spool is, and how long servers may take.
func shorten(c *config.Config, dir string, timeout time.Duration) {
	c.Spool.Path = dir
	for i := range c.Pyroscope {
		c.Pyroscope[i].Timeout = timeout
	}
	for i := range c.Parca {
		c.Parca[i].Timeout = timeout
	}
	for i := range c.OTLP {
		c.OTLP[i].Timeout = timeout
	}
}

func (d *delivery) configure(text string) {
	d.t.Helper()
	if err := d.servers.configure(d.parse(text)); err != nil {
		d.t.Fatal(err)
	}
}

// window is one of three processes.
func (d *delivery) window() {
	d.t.Helper()
	wall, _ := d.servers.clock()
	list, total := windowOf(d.windows, 3, wall)
	for _, p := range list {
		if err := d.servers.take(p); err != nil {
			d.t.Error(err)
		}
	}
	if err := d.servers.commit(); err != nil {
		d.t.Error(err)
	}
	d.windows++
	d.total += total
}

func (d *delivery) stats() queue.Stats {
	d.t.Helper()
	_, all := d.servers.stats()
	st, ok := all["server"]
	if !ok {
		d.t.Fatalf("there is no server: %v", slices.Collect(maps.Keys(all)))
	}
	return st
}

// settled waits until all is delivered or dropped, and checks that nothing is lost.
func (d *delivery) settled(r receiver) queue.Stats {
	d.t.Helper()
	d.await("all is delivered", func() bool { return d.stats().Pending.Profiles == 0 })
	st := d.stats()
	sums, _ := r.got()
	var got, dropped int64
	for _, s := range sums {
		got += s
	}
	for _, n := range st.Dropped {
		dropped += n.Samples
	}
	if got+dropped != d.total || st.Delivered.Samples != got {
		d.t.Errorf("%d samples are there, %d dropped, of %d; %+v", got, dropped, d.total, st)
	}
	return st
}

func (d *delivery) await(what string, is func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("not within a minute: %s; %+v", what, d.stats())
		}
	}
}

// twice counts what came more than once.
func twice(r receiver) (n int) {
	_, came := r.got()
	for _, times := range came {
		n += times - 1
	}
	return n
}

// verdict is what becomes of profiles that meet a fault twice.
type verdict int

const (
	arrive verdict = iota
	lost           // they are refused for ever, by reason
	once           // one more time
)

// matrix is what is to become of each fault, by its names in HTTP and gRPC.
var matrix = map[fault]verdict{
	hangs: arrive, slow: arrive, resets: arrive, loses: arrive, garbage: once,
	"400": lost, "401": arrive, "403": arrive, "413": lost, "429": arrive, "500": once, "502": arrive, "503": arrive, "504": arrive,
	"Canceled": arrive, "Unknown": once, "InvalidArgument": lost, "DeadlineExceeded": arrive, "PermissionDenied": arrive, "ResourceExhausted": arrive,
	"Aborted": arrive, "Internal": once, "Unavailable": arrive, "DataLoss": once, "Unauthenticated": arrive, "FailedPrecondition": lost,
}

// otlpMatrix is where OpenTelemetry's specification says otherwise.
var otlpMatrix = map[fault]verdict{
	"500": lost, "Unknown": lost, "ResourceExhausted": lost, "Internal": lost, "DataLoss": arrive,
}

// TestServersFaults: whatever happens to a request, all samples of all windows are delivered, or counted as dropped; what may
// succeed is sent again, and what came twice is at most what had no answer.
func TestServersFaults(t *testing.T) {
	for name, r := range receivers(t, fastNow) {
		t.Run(name, func(t *testing.T) {
			for f, want := range matrix {
				if other, ok := otlpMatrix[f]; ok && strings.HasPrefix(name, "otlp") {
					want = other
				}
				if grpcOnly, httpOnly := grpcCodes[f] != 0, statusOf(f) != 0; grpcOnly && !r.overGRPC() || httpOnly && r.overGRPC() {
					continue
				}
				t.Run(string(f), func(t *testing.T) {
					t.Parallel()
					testFault(t, name, f, want)
				})
			}
		})
	}
}

func testFault(t *testing.T, name string, f fault, want verdict) {
	d := newDelivery(t, 100)
	if f == hangs || f == slow {
		d.timeout = exportTimeout
	}
	r := receivers(t, d.servers.clock)[name]
	r.listen(t)
	n := 2
	if f == garbage {
		n = 1 // a profile that is taken, and refused for ever, would be counted twice
	}
	taken := r.fail(f, n)
	d.configure(r.section())
	for range 3 {
		d.window()
	}
	st := d.settled(r)
	var dropped int
	for _, c := range st.Dropped {
		dropped += int(c.Profiles)
	}
	most := map[verdict]int{arrive: 0, lost: n, once: n / 2}[want]
	if dropped > most || want == lost && dropped < most {
		t.Errorf("%d dropped, %d expected; %+v", dropped, most, st)
	}
	if n := twice(r); n > 0 && !taken && f != hangs && f != slow || n > int(st.Failures) {
		t.Errorf("%d came twice; %+v", n, st)
	}
	text := d.log.String()
	if failed := f != garbage || name != "ingest"; failed && (st.Failures == 0 || !strings.Contains(text, "destination=server ") || !strings.Contains(text, "level=ERROR")) {
		t.Errorf("it is not told of: %+v\n%s", st, text)
	}
}

func fastNow() (time.Time, time.Duration) { return time.Now(), 0 }

// TestServersAbsent: nobody is there at the start, nor for ten minutes. All arrives, and the log has few lines.
func TestServersAbsent(t *testing.T) {
	for name := range receivers(t, fastNow) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDelivery(t, 10)
			r := receivers(t, d.servers.clock)[name]
			d.configure(r.section())
			for range 60 { // ten minutes
				failed := d.stats().Failures
				d.window()
				d.timer.skip(10 * time.Second)
				if d.windows%6 == 0 {
					d.await("another attempt", func() bool { d.timer.skip(time.Second); return d.stats().Failures > failed })
				}
			}
			if st := d.stats(); st.Delivered.Profiles != 0 || st.Pending.Profiles != 180 || st.Failures == 0 || st.Oldest < 5*time.Minute || st.Bytes == 0 {
				t.Errorf("%+v", st)
			}
			r.listen(t)
			for range 3 {
				d.window()
			}
			st := d.settled(r)
			if len(st.Dropped) != 0 || twice(r) > 0 || st.LastSuccess.IsZero() {
				t.Errorf("%d twice; %+v", twice(r), st)
			}
			text := d.log.String()
			if n := strings.Count(text, "\n"); n > 3 || !strings.Contains(text, "delivered again") || !strings.Contains(text, "refused") {
				t.Errorf("%d lines:\n%s", n, text)
			}
		})
	}
}

// TestServersTooOld: what a server does not take any more is dropped and counted.
func TestServersTooOld(t *testing.T) {
	d := newDelivery(t, 10)
	r := receivers(t, d.servers.clock)["pyroscope"]
	d.configure(r.section())
	d.window()
	d.timer.skip(90 * time.Minute)
	r.listen(t)
	d.window()
	st := d.settled(r)
	if n := st.Dropped["too_old"]; n.Profiles != 3 || st.Delivered.Profiles != 3 {
		t.Errorf("%+v", st)
	}
}

// TestServersReload: a server that a new configuration does not change is left alone; one that moves gets what it has not got; one
// that is wrong changes nothing; without servers there is no spool.
func TestServersReload(t *testing.T) {
	d := newDelivery(t, 100)
	all := receivers(t, d.servers.clock)
	r, other := all["pyroscope"], all["parca"]
	wrong := "pyroscope: {url: 'http://nowhere.invalid:4040', name: server}" // DNS fails
	d.configure(wrong)
	d.window()
	d.await("DNS fails", func() bool { return d.stats().Failures > 0 })
	if e := d.stats().LastError; !strings.Contains(e, "nowhere.invalid") {
		t.Errorf("%s", e)
	}
	before := d.servers.running["server"]
	d.configure(wrong + "\nwindow: 20s")
	if d.servers.running["server"] != before {
		t.Error("a server was begun anew, which is as it was")
	}
	r.listen(t)
	other.listen(t)
	d.configure(r.section())
	d.settled(r)
	if err := d.servers.configure(d.parse(r.section() + "\nparca: {address: 'h:1', tls: {ca: /nothing}}")); err == nil || !strings.Contains(err.Error(), "/nothing") {
		t.Errorf("%v", err)
	}
	d.window()
	d.settled(r)
	d.configure(strings.Replace(other.section(), "server", "other", 1) + "\n" + r.section())
	d.window()
	d.settled(r)
	d.await("the other has it", func() bool { sums, _ := other.got(); return len(sums) == 3 })
	d.configure("")
	if st, servers := d.servers.stats(); st != nil || len(servers) != 0 {
		t.Errorf("%+v, %v", st, servers)
	}
	d.configure(r.section())
	d.window()
	if st := d.settled(r); st.Delivered.Profiles != 12 {
		t.Errorf("what was delivered before was forgotten: %+v", st)
	}
}

// TestServersEnd: the end sends what is fresh, and does not wait for a server that hangs; the next start sends the rest.
func TestServersEnd(t *testing.T) {
	for name := range receivers(t, fastNow) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDelivery(t, 1)
			r := receivers(t, d.servers.clock)[name]
			r.listen(t)
			d.configure(r.section())
			d.window()
			d.end()
			if sums, _ := r.got(); len(sums) != 3 {
				t.Errorf("%d profiles were sent at the end", len(sums))
			}
			d.begin()
			r.fail(hangs, 1)
			d.configure(r.section())
			d.window()
			time.Sleep(200 * time.Millisecond)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			began := time.Now()
			if err := d.servers.close(ctx); err != nil || time.Since(began) > d.timeout/2 {
				t.Errorf("%v: %v", time.Since(began), err)
			}
			d.begin()
			d.configure(r.section())
			d.settled(r)
		})
	}
}

// TestServersSwapSpool: profiles that come while one spool is closed and the next is opened are in one of them.
func TestServersSwapSpool(t *testing.T) {
	d := newDelivery(t, 1)
	r := receivers(t, d.servers.clock)["parca"]
	r.listen(t)
	d.configure(r.section())
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				d.window()
			}
		}
	}()
	for i := range 20 {
		d.configure(fmt.Sprintf("%s\nspool: {max_age: %dh}", r.section(), 1+i%2))
	}
	close(stop)
	<-done
	if st := d.settled(r); st.Delivered.Profiles != int64(3*d.windows) {
		t.Errorf("%d windows: %+v", d.windows, st)
	}
}

// TestServersRejected: what no server will get is counted, and said to be lost; what is in memory for want of a disk is not.
func TestServersRejected(t *testing.T) {
	d := newDelivery(t, 1)
	c := d.parse("parca: localhost:1")
	c.Spool.Path = "/proc/nothing"
	if err := d.servers.configure(c); err == nil {
		t.Fatal("a spool in /proc")
	}
	list, _ := windowOf(0, 2, time.Now())
	if err := d.servers.take(list[0]); !errors.Is(err, errNoSpool) {
		t.Errorf("without a spool: %v", err)
	}
	d.configure(fmt.Sprintf("parca: {address: '%s', name: server}", freePort(t)))
	list[1].Data.PeriodType = nil
	if err := d.servers.take(list[1]); !errors.Is(err, spool.ErrRejected) {
		t.Errorf("without a period type: %v", err)
	}
	if st, _ := d.servers.stats(); st.Rejected != 2 {
		t.Errorf("%+v", st)
	}
	if text := d.log.String(); strings.Count(text, "profile is lost") != 1 || strings.Contains(text, "in memory") {
		t.Errorf("the log:\n%s", text)
	}
	if err := os.RemoveAll(d.dir); err != nil {
		t.Fatal(err)
	}
	list, _ = windowOf(1, 2048, time.Now()) // the last one completes a batch
	for _, p := range list {
		if err := d.servers.take(p); err != nil {
			t.Fatal(err)
		}
	}
	if st, _ := d.servers.stats(); st.Memory == 0 || st.Rejected != 2 || !strings.Contains(d.log.String(), "in memory only") {
		t.Errorf("%+v, the log:\n%s", st, d.log)
	}
	if err := d.servers.close(t.Context()); err == nil || !strings.Contains(err.Error(), "in memory only") {
		t.Errorf("the end: %v", err)
	}
	d.begin()
}

// TestServersSpoolUnusable: where the spool cannot be opened the agent says so, and does not begin.
func TestServersSpoolUnusable(t *testing.T) {
	d := newDelivery(t, 1)
	c := d.parse("parca: localhost:1")
	c.Spool.Path = "/proc/nothing"
	if err := d.servers.configure(c); err == nil || !strings.Contains(err.Error(), "/proc/nothing") {
		t.Errorf("%v", err)
	}
	d.configure(fmt.Sprintf("parca: {address: '%s', name: server}", freePort(t)))
	d.window()
}
