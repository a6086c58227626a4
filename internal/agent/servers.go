package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/queue"
	"github.com/pprofd/pprofd/export/spool"
	"github.com/pprofd/pprofd/internal/agent/config"
)

// servers are the destinations that are reached over the network, and the spool in which profiles wait for them. A new
// configuration leaves those alone that it does not change: what is on its way arrives, and what waits goes on to wait.
type servers struct {
	log      *slog.Logger
	version  string
	registry *prometheus.Registry // whose metrics OTLP servers get

	clock spool.Clock // of tests; nil: the system's
	after func(time.Duration) <-chan time.Time

	changing sync.Mutex   // held while the configuration changes
	swapping sync.RWMutex // held to use the spool for what is new, and by who closes it until there is another one

	mu      sync.Mutex
	opt     spool.Options
	spool   *spool.Spool // nil: there is no server for profiles, or needed
	needed  bool
	missed  int64 // profiles that found no spool though it is needed
	running map[string]*server
	failing *troubles // of the spool
}

// server is one of them, running.
type server struct {
	wanted
	troubles *troubles
	queue    *queue.Queue       // nil: it takes no profiles
	cancel   context.CancelFunc // of the rest
	ran      sync.WaitGroup
}

func newServers(log *slog.Logger, version string, r *prometheus.Registry) *servers {
	t := newTroubles(log, "spool")
	t.bad, t.good = "profiles are kept in memory only, as far as there is room", "profiles are kept on disk again"
	return &servers{log: log, version: version, registry: r, running: make(map[string]*server), failing: t}
}

// configure makes the servers those of c. Where it fails, some may be gone: to go back, configure with what was before.
func (s *servers) configure(c *config.Config) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	list, opt := s.wanted(c), spool.Options{Dir: c.SpoolPath(), MaxSize: c.Spool.MaxSize, MaxAge: c.Spool.MaxAge}
	anew := s.spool == nil || !c.Servers() || !reflect.DeepEqual(opt, s.opt)
	add := slices.DeleteFunc(slices.Clone(list), func(w wanted) bool { return !anew && s.has(w) })
	opened, err := openAll(add)
	if err != nil {
		return err
	}
	s.stop(func(r *server) bool { return anew || !slices.ContainsFunc(list, r.same) })
	if anew {
		if err := s.reopen(c.Servers(), opt); err != nil {
			return errors.Join(err, closeAll(opened))
		}
	}
	return s.start(list, opened)
}

func (s *servers) has(w wanted) bool {
	r := s.running[w.name]
	return r != nil && r.same(w)
}

// same says whether w is configured as it was.
func (w *wanted) same(other wanted) bool {
	return w.name == other.name && w.authorities.Equal(other.authorities) && reflect.DeepEqual(w.config, other.config)
}

// reopen opens the spool with other options, or ends to have one. What is taken meanwhile waits.
func (s *servers) reopen(needed bool, opt spool.Options) error {
	s.swapping.Lock()
	defer s.swapping.Unlock()
	if err := s.closeSpool(); err != nil { // what it could not write is counted, and does not come back
		s.failing.failed(err, 0)
	}
	s.mu.Lock()
	s.needed = needed
	s.mu.Unlock()
	if !needed {
		return nil
	}
	with := opt
	with.Clock = s.clock
	opened, err := spool.Open(with)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spool, s.opt = opened, opt
	return nil
}

func (s *servers) closeSpool() error {
	s.mu.Lock()
	old := s.spool
	s.spool = nil
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.Close()
}

// start runs those that do not run. The spool is told of all.
func (s *servers) start(list []wanted, opened map[string]parts) error {
	var destinations []spool.Destination
	for _, w := range list {
		if w.takesProfiles() {
			destinations = append(destinations, spool.Destination{Name: w.name, MaxAge: w.maxAge})
		}
	}
	var cursors []*spool.Cursor
	if s.spool != nil {
		var err error
		if cursors, err = s.spool.Attach(destinations...); err != nil {
			return errors.Join(err, closeAll(opened))
		}
	}
	for i, d := range destinations {
		if p, ok := opened[d.Name]; ok {
			p.cursor = cursors[i]
			opened[d.Name] = p
		}
	}
	for _, w := range list {
		if p, ok := opened[w.name]; ok {
			if err := s.run(w, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *servers) run(w wanted, p parts) error {
	ctx, cancel := context.WithCancel(context.Background())
	r := &server{wanted: w, troubles: newTroubles(s.log, w.name), cancel: cancel}
	if p.exporter != nil {
		q, err := queue.New(queue.Options{
			Name: w.name, Cursor: p.cursor, Exporter: noticed{p.exporter, r.troubles}, Parallel: w.parallel, Timeout: exportTimeouts * w.timeout,
			Failed: r.troubles.failed, Dropped: r.troubles.dropped, Clock: s.clock, After: s.after,
		})
		if err != nil {
			cancel()
			return errors.Join(err, p.close())
		}
		r.queue = q
		r.ran.Go(func() { _ = q.Run(context.Background()) }) // until Close
	}
	if p.metrics != nil {
		r.ran.Go(func() { _ = errors.Join(p.metrics.Run(ctx), p.metrics.Close()) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[w.name] = r
	return nil
}

// exportTimeouts of a request are what a profile may take: a large one is sent in parts.
const exportTimeouts = 4

// stop ends those that which names, at once. What is on its way to them may arrive twice.
func (s *servers) stop(which func(*server) bool) {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.end(now, which) // what is not delivered waits
}

// end ends some servers; until ctx ends, fresh profiles are delivered.
func (s *servers) end(ctx context.Context, which func(*server) bool) error {
	s.mu.Lock()
	list := slices.DeleteFunc(slices.Collect(maps.Values(s.running)), func(r *server) bool { return !which(r) })
	for _, r := range list {
		delete(s.running, r.name)
	}
	s.mu.Unlock()
	errs := make([]error, len(list))
	var ended sync.WaitGroup
	for i, r := range list {
		ended.Go(func() { errs[i] = r.end(ctx) })
	}
	ended.Wait()
	return errors.Join(errs...)
}

func (r *server) end(ctx context.Context) (err error) {
	if r.queue != nil {
		<-r.queue.Begun() // one that is closed before sends nothing
		err = r.queue.Close(ctx)
		if waits := r.queue.Stats().Pending.Profiles; waits > 0 && ctx.Err() == nil {
			r.troubles.log.Warn("not all was delivered; it waits for the next start", "destination", r.name, "profiles", waits)
		}
	}
	r.cancel()
	r.ran.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}

// close delivers what is fresh until ctx ends; what is left waits on disk for the next start.
func (s *servers) close(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	err := s.end(ctx, func(*server) bool { return true })
	s.swapping.Lock()
	defer s.swapping.Unlock()
	return errors.Join(err, s.closeSpool())
}

func (s *servers) present() *spool.Spool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spool
}

var errNoSpool = errors.New("there is no spool: it could not be opened")

// take puts p into the spool, where there is one. An error says that no server will get p, which is counted.
func (s *servers) take(p *export.Profile) error {
	s.swapping.RLock()
	defer s.swapping.RUnlock()
	open, err := s.present(), error(nil)
	switch {
	case open != nil:
		err = open.Append(p)
	case s.misses():
		err = errNoSpool
	}
	switch {
	case err == nil:
		return nil
	case open == nil, errors.Is(err, spool.ErrRejected), errors.Is(err, spool.ErrClosed):
		s.failing.dropped(p, "rejected", err)
		return err
	}
	s.failing.failed(err, 0) // of a batch, which is in memory now, or counted as dropped
	return nil
}

// misses counts a profile for which there is no spool, if there should be one.
func (s *servers) misses() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.needed {
		s.missed++
	}
	return s.needed
}

// commit offers to the servers what was taken, once it is on the disk, and removes what is too old.
func (s *servers) commit() error {
	s.swapping.RLock()
	defer s.swapping.RUnlock()
	spool := s.present()
	if spool == nil {
		return nil
	}
	err := spool.Commit()
	if err != nil {
		s.failing.failed(err, 0)
	} else {
		s.failing.succeeded()
	}
	return err
}

// stats are those of the spool, if there is one, and of each server that takes profiles.
func (s *servers) stats() (*spool.Stats, map[string]queue.Stats) {
	s.mu.Lock()
	running, open, missed := maps.Clone(s.running), s.spool, s.missed
	s.mu.Unlock()
	all := make(map[string]queue.Stats)
	for name, r := range running {
		if r.queue != nil {
			all[name] = r.queue.Stats()
		}
	}
	if open == nil {
		return nil, all
	}
	st := open.Stats()
	st.Rejected += missed
	return &st, all
}

// noticed tells of success, too.
type noticed struct {
	export.Exporter
	troubles *troubles
}

func (n noticed) Export(ctx context.Context, p *export.Profile) error {
	err := n.Exporter.Export(ctx, p)
	if err == nil {
		n.troubles.succeeded()
	}
	return err
}

// maxPyroscopeAge: servers take profiles of the last hour unless configured otherwise (validation.reject-older-than); on the
// way some time passes.
const maxPyroscopeAge = time.Hour - time.Minute
