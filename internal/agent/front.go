package agent

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/agent/notify"
	"github.com/pprofd/pprofd/internal/agent/web"
)

// front is what others see of the agent over HTTP; one of a configuration without an address waits.
type front struct{ server *web.Server }

func (a *Agent) newFront(c *config.Config) (*front, error) {
	if c.Listen == "" {
		return &front{}, nil
	}
	r := prometheus.NewRegistry()
	for _, m := range []prometheus.Collector{
		a.metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := r.Register(m); err != nil {
			return nil, err
		}
	}
	s, err := web.New(c.Web(), web.Options{Registry: r, Healthy: a.healthy, Ready: a.ready, Log: a.log})
	if err != nil {
		return nil, err
	}
	return &front{s}, nil
}

// serve answers until ctx ends.
func (f *front) serve(ctx context.Context) error {
	if f.server == nil {
		<-ctx.Done()
		return nil
	}
	return f.server.Serve(ctx)
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
