package discover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Bounds on asking for metadata.
const (
	askTimeout    = 10 * time.Second
	askPause      = 2 * time.Second  // between two questions, if processes wait for the answer
	askRefresh    = time.Minute      // if none does
	maxAskBackoff = time.Minute      // after errors
	maxAnswer     = 16 << 20         // bytes, of a container runtime
	maxPodsAnswer = 64 << 20         // bytes, of Kubernetes; it is read pod by pod
	maxToken      = 64 << 10         // bytes
	maxPathSocket = 107              // bytes, unix(7)
	logAgainAfter = 30 * time.Minute // the same source's error
)

// errAbsent says that a source does not exist here: nobody waits for it.
var errAbsent = errors.New("there is none here")

// Containers says which container runtimes are asked.
type Containers struct {
	// Sockets are paths of Unix sockets. "docker:/path" speaks the Docker Engine API, as does a path that ends in docker.sock or
	// podman.sock; "cri:/path", and any other path, Kubernetes' CRI. Those that do not exist are looked for once a minute.
	Sockets []string
}

// DefaultSockets are where container runtimes listen if nobody told them otherwise.
func DefaultSockets() []string {
	return []string{
		"cri:/run/containerd/containerd.sock", "cri:/run/k3s/containerd/containerd.sock", "cri:/run/crio/crio.sock",
		"docker:/run/docker.sock", "docker:/run/podman/podman.sock",
	}
}

// CheckSocket says what is wrong with one of Containers.Sockets.
func CheckSocket(socket string) error {
	_, err := socketSource(socket)
	return err
}

// socketSource is the source behind a socket.
func socketSource(socket string) (*source, error) {
	kind, path, ok := strings.Cut(socket, ":")
	if !ok {
		kind, path = "cri", socket
		if base := filepath.Base(socket); base == "docker.sock" || base == "podman.sock" {
			kind = "docker"
		}
	}
	if !filepath.IsAbs(path) || len(path) > maxPathSocket {
		return nil, fmt.Errorf("container socket %q: give an absolute path of at most %d bytes, or cri:PATH, or docker:PATH", socket, maxPathSocket)
	}
	switch kind {
	case "cri":
		return newSource(kind+":"+path, criAsker(path)), nil
	case "docker":
		return newSource(kind+":"+path, dockerAsker(path)), nil
	}
	return nil, fmt.Errorf("container socket %q: %q is none of cri and docker", socket, kind)
}

// newSources are all sources of a configuration.
func newSources(c *Config) (sources []*source, err error) {
	seen := map[string]bool{}
	for _, socket := range c.Containers.Sockets {
		s, errSocket := socketSource(socket)
		err = errors.Join(err, errSocket)
		if s != nil && !seen[s.name] {
			seen[s.name] = true
			sources = append(sources, s)
		}
	}
	kube, errKube := c.Kubernetes.sources()
	return append(sources, kube...), errors.Join(err, errKube)
}

// source is one place that is asked.
type source struct {
	name string
	ask  asker
	wake chan struct{} // somebody waits

	// Guarded by metadata.mu:
	last     *snapshot
	answered time.Time // when the question was asked that it answered last
	absent   bool      // there is no such thing on this machine
	asked    uint64
	errors   uint64
	err      error // of the last question
	logged   time.Time
}

// asker asks for everything. The error wraps errAbsent where there is nobody to ask.
type asker func(context.Context) (*snapshot, error)

func newSource(name string, ask asker) *source {
	return &source{name: name, ask: ask, wake: make(chan struct{}, 1), last: newSnapshot()}
}

// mayKnow says whether the source may know things of a process that it has not said yet.
func (s *source) mayKnow(seen time.Time) bool {
	return !s.absent && s.answered.Before(seen.Add(grace))
}

// hurry has the source asked soon.
func (s *source) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run asks the sources of metadata until ctx ends: at once, each minute, and when a process is seen of whose container or
// pod nothing is known. It returns nil.
func (d *Discovery) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		sources, changed := d.meta.current()
		d.ask(ctx, sources, changed)
	}
	return nil
}

// ask keeps the sources up to date until ctx ends, or they have changed.
func (d *Discovery) ask(ctx context.Context, sources []*source, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, s := range sources {
		all.Go(func() { d.keep(ctx, s) })
	}
	select {
	case <-ctx.Done():
	case <-changed:
	}
	cancel()
	all.Wait()
}

// keep asks one source again and again.
func (d *Discovery) keep(ctx context.Context, s *source) {
	backoff := askPause
	for {
		err := d.askOnce(ctx, s)
		pause := askPause
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errAbsent):
			pause = askRefresh
		case err != nil:
			pause, backoff = backoff, min(2*backoff, maxAskBackoff)
		default:
			backoff = askPause
		}
		if !sleep(ctx, pause, nil) || err == nil && !sleep(ctx, askRefresh-askPause, s.wake) {
			return
		}
	}
}

// sleep waits, at most until wake. It is false if ctx has ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return true
}

func (d *Discovery) askOnce(ctx context.Context, s *source) error {
	asked := time.Now()
	within, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := s.ask(within)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if d.meta.note(s, asked, answer, err) {
		d.logger().Warn("metadata cannot be had", "source", s.name, "error", err)
	}
	return err
}

// errTooLong says that an answer is not read to its end.
var errTooLong = errors.New("the answer is too long")

// bounded reads at most n bytes; more are an error.
type bounded struct {
	r io.Reader
	n int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.n <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.n)])
	b.n -= int64(n)
	return n, err
}
