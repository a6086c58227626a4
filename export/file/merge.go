package file

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// Bounds of what a Merger holds besides the sum.
const (
	groupLen     = 32      // profiles
	groupSamples = 1 << 16 // of them together
	maxComments  = 50      // of the sum
)

// Merger adds profiles up. It holds the sum and a few profiles, so that its memory depends on how many different stacks there
// are, and hardly on the number of profiles.
type Merger struct {
	group    []*profile.Profile // the sum so far is the first
	samples  int
	merged   int
	labels   []export.Label // that all have
	comments []string
	counted  [2]uint64 // samples recorded, samples lost, as comments say
}

// Add adds p, which is the Merger's from then on, and the labels of its process.
func (m *Merger) Add(p *profile.Profile, labels []export.Label) error {
	if len(m.group) > 0 {
		if err := SameKind(m.group[0], p); err != nil {
			return err
		}
	}
	if m.merged == 0 {
		m.labels = labels
	}
	m.labels = slices.DeleteFunc(slices.Clone(m.labels), func(l export.Label) bool { return !slices.Contains(labels, l) })
	for _, c := range p.Comments {
		if recorded, lost, ok := export.ParseSamplesComment(c); ok {
			m.counted[0], m.counted[1] = m.counted[0]+recorded, m.counted[1]+lost
		} else if !slices.Contains(m.comments, c) && len(m.comments) < maxComments {
			m.comments = append(m.comments, c)
		}
	}
	p.Comments = nil
	m.group, m.samples, m.merged = append(m.group, p), m.samples+len(p.Sample), m.merged+1
	if len(m.group) > groupLen || m.samples > groupSamples {
		return m.flush()
	}
	return nil
}

func (m *Merger) flush() error {
	if len(m.group) < 2 {
		return nil
	}
	sum, err := profile.Merge(m.group)
	if err != nil {
		return err
	}
	m.group, m.samples = []*profile.Profile{sum}, 0
	return nil
}

// Merged is how many profiles have been added.
func (m *Merger) Merged() int { return m.merged }

// Labels are those that all processes have in common.
func (m *Merger) Labels() []export.Label { return m.labels }

// Profile is the sum: nil if there is none. Its time is that of the first profile, its duration that of all together. Nothing
// can be added afterwards.
func (m *Merger) Profile() (*profile.Profile, error) {
	if m.merged == 0 {
		return nil, nil
	}
	if err := m.flush(); err != nil {
		return nil, err
	}
	p := m.group[0]
	p.Comments = m.comments
	if m.counted != [2]uint64{} {
		p.Comments = append(p.Comments, export.SamplesComment(m.counted[0], m.counted[1]))
	}
	p.Comments = append(p.Comments, labelComment(m.labels)...)
	if m.merged > 1 {
		p.Comments = append(p.Comments, fmt.Sprintf("merged from %d profiles", m.merged))
	}
	return p, nil
}

// SameKind says why profiles of different kinds cannot be added up or subtracted.
func SameKind(a, b *profile.Profile) error {
	if x, y := typesOf(a), typesOf(b); x != y {
		return fmt.Errorf("profiles of different kinds: one has %s, another %s", x, y)
	}
	return nil
}

func typesOf(p *profile.Profile) string {
	var list []string
	for _, t := range p.SampleType {
		list = append(list, t.Type+"/"+t.Unit)
	}
	return strings.Join(list, ", ")
}
