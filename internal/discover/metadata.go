package discover

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"time"
)

// Container is what a container runtime, or the kubelet, says of a container.
type Container struct {
	Name   string
	Image  string
	PodUID string // "" where it is in no pod
	Labels map[string]string
}

// Pod is what the kubelet, or a container runtime, says of a pod.
type Pod struct {
	UID       string
	Name      string
	Namespace string
	Labels    map[string]string
}

// snapshot is everything that a source knows. It does not change.
type snapshot struct {
	containers map[string]Container // by ID
	pods       map[string]Pod       // by UID
}

func newSnapshot() *snapshot {
	return &snapshot{containers: map[string]Container{}, pods: map[string]Pod{}}
}

// Bounds on what is kept of a source: a machine runs some hundred pods.
const (
	maxObjects   = 10_000
	maxPodLabels = 64
	// grace is how long a source may lag behind: what it did not list in an answer that began so long after the process was
	// seen, it does not know.
	grace = 5 * time.Second
)

func (s *snapshot) addContainer(id string, c Container) {
	if len(s.containers) < maxObjects && id != "" {
		c.Name, c.Image, c.Labels = clean(c.Name), clean(c.Image), cleanLabels(c.Labels)
		s.containers[strings.Clone(id)] = c
	}
}

func (s *snapshot) addPod(p Pod) {
	if len(s.pods) < maxObjects && p.UID != "" {
		s.pods[strings.Clone(p.UID)] = Pod{strings.Clone(p.UID), clean(p.Name), clean(p.Namespace), cleanLabels(p.Labels)}
	}
}

func (s *snapshot) equal(t *snapshot) bool {
	return maps.EqualFunc(s.containers, t.containers, func(a, b Container) bool {
		return a.Name == b.Name && a.Image == b.Image && a.PodUID == b.PodUID && maps.Equal(a.Labels, b.Labels)
	}) && maps.EqualFunc(s.pods, t.pods, func(a, b Pod) bool {
		return a.Name == b.Name && a.Namespace == b.Namespace && maps.Equal(a.Labels, b.Labels)
	})
}

func cleanLabels(labels map[string]string) map[string]string {
	out := make(map[string]string, min(len(labels), maxPodLabels))
	for k, v := range labels {
		if len(out) == maxPodLabels {
			break
		}
		out[clean(k)] = clean(v)
	}
	return out
}

// metadata is what the sources have said last.
type metadata struct {
	mu         sync.Mutex
	sources    []*source
	generation uint64        // grows with each change
	changed    chan struct{} // closed when there are other sources
}

// find looks a process's container and pod up. waiting says that a source that has not answered yet may know more.
func (m *metadata) find(g *group, seen time.Time) (c Container, p Pod, waiting bool) {
	if g.containerID == "" && g.podUID == "" {
		return Container{}, Pod{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	podUID := g.podUID
	var hasContainer, hasPod bool
	for _, s := range m.sources {
		if found, ok := s.last.containers[g.containerID]; ok && !hasContainer {
			c, hasContainer = found, true
			podUID = orElse(podUID, c.PodUID)
		}
	}
	for _, s := range m.sources {
		if found, ok := s.last.pods[podUID]; ok && (!hasPod || len(p.Labels) == 0) {
			p, hasPod = found, true
		}
		waiting = waiting || s.mayKnow(seen)
	}
	missing := g.containerID != "" && !hasContainer || podUID != "" && !hasPod
	if waiting = waiting && missing; waiting {
		for _, s := range m.sources {
			s.hurry()
		}
	}
	return c, p, waiting
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// state is the generation, which changes when anything that find answers from does.
func (m *metadata) state() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// setSources replaces the sources; those that stay keep what they know.
func (m *metadata) setSources(sources []*source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range sources {
		for _, old := range m.sources {
			if old.name == s.name {
				s.last, s.answered, s.asked, s.errors = old.last, old.answered, old.asked, old.errors
			}
		}
	}
	m.sources = sources
	m.generation++
	if m.changed != nil {
		close(m.changed)
	}
	m.changed = make(chan struct{})
}

// current are the sources, and what is closed when there are others.
func (m *metadata) current() ([]*source, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sources, m.changed
}

// note keeps an answer, or counts the error. log is whether the error is news.
func (m *metadata) note(s *source, asked time.Time, answer *snapshot, err error) (log bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.asked++
	absent := errors.Is(err, errAbsent)
	if absent != s.absent || err == nil && (s.answered.IsZero() || !s.last.equal(answer)) {
		m.generation++
	}
	s.absent, s.err = absent, err
	switch {
	case err == nil:
		s.last, s.answered, s.logged = answer, asked, time.Time{}
	case !absent:
		s.errors++
		log = time.Since(s.logged) > logAgainAfter
		if log {
			s.logged = time.Now()
		}
	}
	return log
}

// SourceStats are what was asked of a source of metadata, and came of it.
type SourceStats struct {
	Asked, Errors    uint64
	LastError        error     // nil: the last question was answered
	Absent           bool      // it does not exist here
	Answered         time.Time // when the last question was asked that was answered
	Containers, Pods int
}

func (m *metadata) stats() map[string]SourceStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	stats := map[string]SourceStats{}
	for _, s := range m.sources {
		stats[s.name] = SourceStats{s.asked, s.errors, s.err, s.absent, s.answered, len(s.last.containers), len(s.last.pods)}
	}
	return stats
}
