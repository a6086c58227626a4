package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/agent"
	"github.com/pprofd/pprofd/internal/agent/config"
	"github.com/pprofd/pprofd/internal/discover"
)

// sendOptions are the flags of record that say where profiles go besides files.
type sendOptions struct {
	pyroscope, parca, otlp []string
	config                 string
	labels                 []string // NAME=VALUE
	timeout                time.Duration
}

func (o *sendOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.pyroscope, "pyroscope", nil, "send the profiles to this Pyroscope, too: http://HOST:4040; repeatable")
	f.StringArrayVar(&o.parca, "parca", nil, "send the profiles to this Parca, too: HOST:7070, without TLS, or https://HOST:PORT; repeatable")
	f.StringArrayVar(&o.otlp, "otlp", nil, "send the profiles to this receiver of OpenTelemetry's (which may change), too: HOST:4317, without TLS, or https://HOST:PORT; repeatable")
	f.StringVar(&o.config, "config", "", "send the profiles to the servers that this configuration of the agent names, where there are passwords, tokens and certificates, too")
	f.StringArrayVar(&o.labels, "label", nil, "servers: add this label, as NAME=VALUE; service_name=NAME names the service; repeatable")
	f.DurationVar(&o.timeout, "send-timeout", 30*time.Second, "servers: for how long to try")
}

func (o *sendOptions) wanted() bool {
	return len(o.pyroscope)+len(o.parca)+len(o.otlp) > 0 || o.config != ""
}

func (o *sendOptions) check() error {
	if o.timeout <= 0 {
		return fmt.Errorf("--send-timeout %v is not positive", o.timeout)
	}
	if len(o.labels) > 0 && !o.wanted() {
		return errors.New("--label is for servers: there is none")
	}
	for _, l := range o.labels {
		name, value, _ := strings.Cut(l, "=")
		if value == "" || name != export.LabelName(name) || strings.HasPrefix(name, "__") {
			return fmt.Errorf("--label %q: NAME=VALUE is wanted; a name has letters, digits and _", l)
		}
	}
	return nil
}

// destinations are nothing where no server is named.
func (o *sendOptions) destinations() ([]agent.Destination, error) {
	if !o.wanted() {
		return nil, nil
	}
	flags := map[string][]string{}
	for name, values := range map[string][]string{"pyroscope": o.pyroscope, "parca": o.parca, "otlp": o.otlp} {
		if len(values) > 0 {
			flags[name] = values
		}
	}
	c, err := config.Load(o.config, flags)
	if err != nil {
		return nil, usageError{err}
	}
	list, err := agent.Destinations(c, version())
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("configuration %s names no server for profiles", o.config)
	}
	if err != nil {
		return nil, usageError{err}
	}
	return list, nil
}

// sending takes the profiles of a recording to servers, while others are made.
type sending struct {
	to     []*recipient
	by     *naming
	cancel context.CancelFunc
	ran    sync.WaitGroup
}

// newSending returns nil where there is no server.
func newSending(o *recordOptions, targets []*discover.Process) (*sending, error) {
	list, err := o.send.destinations()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &sending{by: newNaming(o, targets), cancel: cancel}
	for _, d := range list {
		r := &recipient{Destination: d, patience: o.send.timeout, wake: make(chan struct{}, 1)}
		s.to = append(s.to, r)
		s.ran.Go(func() { r.run(ctx) })
	}
	return s, nil
}

// add gives p to the servers. It keeps nothing of p but what it encodes.
func (s *sending) add(p *export.Profile) error {
	if s == nil {
		return nil
	}
	q := s.by.name(p)
	e, err := q.Encode()
	if err != nil || e.Samples == 0 { // nobody keeps nothing
		return err
	}
	q.Data = nil
	for _, r := range s.to {
		r.add(q)
	}
	return nil
}

// finish waits until all is sent, or given up. abandon ends that.
func (s *sending) finish() <-chan struct{} {
	for _, r := range s.to {
		r.add(nil)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ran.Wait()
	}()
	return done
}

// close gives up what is not sent.
func (s *sending) close() {
	if s == nil {
		return
	}
	s.cancel()
	s.ran.Wait()
	for _, r := range s.to {
		r.Close()
	}
}

// recipient is a server, to which profiles go one after the other.
type recipient struct {
	agent.Destination
	patience time.Duration
	wake     chan struct{}

	mu     sync.Mutex
	queue  []*export.Profile // nil: there is no more
	sent   int
	failed []*export.Profile
	err    error // of the last that failed
}

func (r *recipient) add(p *export.Profile) {
	r.mu.Lock()
	r.queue = append(r.queue, p)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take returns what is waiting.
func (r *recipient) take() []*export.Profile {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.queue
	r.queue = nil
	return list
}

// run sends what is added until there is no more, or ctx ends.
func (r *recipient) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.wake:
		}
		tired := false // of trying: what waits already is not tried then
		for list := r.take(); len(list) > 0; {
			p := list[0]
			switch list = list[1:]; {
			case p == nil:
				return
			case tired:
				r.fail(p, nil)
			default:
				tired = r.deliver(ctx, p)
			}
			if len(list) == 0 {
				list = r.take()
			}
		}
	}
}

func (r *recipient) fail(p *export.Profile, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, p)
	r.err = cmp.Or(err, r.err)
}

const maxPause = 5 * time.Second

// deliver tries until p is delivered or never can be. tired is true where it might have been later.
func (r *recipient) deliver(ctx context.Context, p *export.Profile) (tired bool) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	again := false
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, maxPause) {
		err := r.Export(ctx, p)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.sent++
			return false
		}
		wait := pause/2 + rand.N(pause/2)
		if e := export.RetryOf(err); e != nil {
			if e.Retry == export.Never || e.Retry == export.Once && again {
				r.fail(p, err)
				return false
			}
			again, wait = e.Retry == export.Once, max(wait, e.After)
		}
		select {
		case <-ctx.Done():
			r.fail(p, err)
			return true
		case <-time.After(wait):
		}
	}
}

// finishSending waits for the servers, and tells what they have got. A signal that asks to end ends that.
func (r *recording) finishSending(sigs *signals) error {
	if r.sending == nil {
		return nil
	}
	done := r.sending.finish()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case sig := <-sigs.c:
			if sigs.react(sig) != goOn {
				r.sending.cancel()
			}
		}
	}
	var errs []error
	for _, to := range r.sending.to {
		if to.sent > 0 && !r.o.quiet {
			fmt.Fprintf(r.stdout, "%s: %s sent\n", discover.Printable(to.Name), counted(to.sent))
		}
		errs = append(errs, r.unsent(to))
	}
	return errors.Join(errs...)
}

func counted(n int) string {
	if n == 1 {
		return "1 profile"
	}
	return fmt.Sprintf("%d profiles", n)
}

// unsent says what a server has not got, and where that is.
func (r *recording) unsent(to *recipient) error {
	missing := to.failed
	for _, p := range to.queue { // it was given up before
		if p != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	where := "written to " + shellQuote(r.out.path)
	if names := r.sink.Names(); len(names) == 1 {
		where = "written to " + shellQuote(names[0])
	} else if r.out.standard() {
		where = "written to standard output"
	}
	err := cmp.Or(to.err, errGivenUp)
	return fmt.Errorf("%s: %s not sent, but %s: %w", discover.Printable(to.Name), counted(len(missing)), where, err)
}

var errGivenUp = errors.New("given up")

// naming gives profiles the labels by which servers tell processes apart. Those of the agent have them already.
type naming struct {
	host    string
	program string // behind --
	targets map[int]*discover.Process
	extra   []export.Label
	service string // of --label
}

func newNaming(o *recordOptions, targets []*discover.Process) *naming {
	n := &naming{targets: make(map[int]*discover.Process)}
	n.host, _ = os.Hostname() // without a name there is no such label
	for _, p := range targets {
		n.targets[p.PID] = p
	}
	if len(o.program) > 0 {
		n.program = filepath.Base(o.program[0])
	}
	for _, l := range o.send.labels {
		name, value, _ := strings.Cut(l, "=")
		if name == "service_name" {
			n.service = value
			continue
		}
		n.extra = append(n.extra, export.Label{Name: name, Value: value})
	}
	return n
}

// name returns p with labels; p stays as it is.
func (n *naming) name(p *export.Profile) *export.Profile {
	q := *p
	q.Encoded = nil
	var service string
	var labels []export.Label
	switch t := n.targets[p.PID]; {
	case t != nil:
		service, labels = t.Labels(n.host)
	case p.PID == 0:
		service, labels = n.common(), n.own(p)
	default:
		service, labels = n.program, n.own(p)
	}
	for _, l := range n.extra {
		labels = slices.DeleteFunc(labels, func(old export.Label) bool { return old.Name == l.Name })
	}
	q.Labels = append(slices.Clone(labels), n.extra...)
	slices.SortFunc(q.Labels, func(a, b export.Label) int { return strings.Compare(a.Name, b.Name) })
	q.Service = cmp.Or(n.service, service, p.Comm)
	return &q
}

// own are the labels of what was not looked at before.
func (n *naming) own(p *export.Profile) (labels []export.Label) {
	if p.PID != 0 {
		labels = []export.Label{{Name: "comm", Value: p.Comm}, {Name: "pid", Value: fmt.Sprint(p.PID)}}
	}
	if n.host != "" {
		labels = append(labels, export.Label{Name: "host", Value: n.host})
	}
	return labels
}

// common is the service of all targets; "" where they are of several.
func (n *naming) common() (service string) {
	for _, t := range n.targets {
		s, _ := t.Labels(n.host)
		if service != "" && s != service {
			return ""
		}
		service = s
	}
	return cmp.Or(service, n.program)
}
