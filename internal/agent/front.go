package agent

import (
	"context"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/agent/notify"
	"github.com/pprofd/pprofd/internal/agent/web"
)

// front is what others see of the agent over HTTP; one of a configuration without an address waits.
type front struct {
	server *web.Server
	pull   *puller
}

func (a *Agent) newFront(c *config.Config) (*front, error) {
	if c.Listen == "" {
		return &front{}, nil
	}
	r, err := newRegistry(a.metrics) // the server adds metrics of its own
	if err != nil {
		return nil, err
	}
	s, err := web.New(c.Web(), web.Options{Registry: r, Healthy: a.healthy, Ready: a.ready, Log: a.log})
	if err != nil {
		return nil, err
	}
	f := &front{s, a.newPuller(c)}
	pprofhttp.New(f.pull, f.pull).Register(func(pattern string, h http.Handler) { s.Handle(web.Protected, pattern, h) })
	serveUI(s, f.pull)
	return f, nil
}

func newRegistry(m *metrics) (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// serve answers until ctx ends.
func (f *front) serve(ctx context.Context) error {
	if f.server == nil {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pull sync.WaitGroup
	pull.Go(func() {
		<-ctx.Done()
		f.pull.stop()
	})
	err := f.server.Serve(ctx)
	cancel()
	pull.Wait()
	return err
}

// watch tells systemd, where it has started the agent, that the agent lives.
func (a *Agent) watch(ctx context.Context) error {
	return notify.Watchdog(ctx, a.healthy, func(err error) { a.log.Error("not well", "error", err) })
}

// tell tells systemd of a change.
func (a *Agent) tell(send func() error) {
	if err := send(); err != nil {
		a.log.Warn("systemd was not told", "error", err)
	}
}
