package pyroscope

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

const (
	maxFrames = 1000 // validation.max-profile-stacktrace-depth: the server would cut at the leaf
	maxSeries = 32   // of one profile: each is stored, and asked for, on its own
)

// truncatedFrame stands for frames in the middle of a stack that are left out.
const truncatedFrame = "[truncated]"

// spans are the labels that the server keeps with samples and does not make series of; and their lengths. It takes nothing else for one.
var spans = map[string]int{"span_id": 16, "profile_id": 16, "trace_id": 32}

// mender changes a profile that is nobody else's into what the server takes.
type mender struct {
	e       *Exporter
	d       *profile.Profile
	r       *request
	changed bool
}

// mend says whether d was changed.
func (e *Exporter) mend(d *profile.Profile, r *request) (bool, error) {
	m := &mender{e: e, d: d, r: r}
	if err := m.types(); err != nil {
		return false, err
	}
	m.labels()
	m.stacks()
	if m.changed {
		d.Comments = nil // the server keeps neither them, nor labels that are numbers
		for _, s := range d.Sample {
			s.NumLabel, s.NumUnit = nil, nil
		}
	}
	return m.changed, nil
}

// types leaves the sample types of the kind.
func (m *mender) types() error {
	want, d := m.r.kind.types, m.d
	if want == nil {
		return nil
	}
	var keep []int
	for _, name := range want {
		if i := slices.IndexFunc(d.SampleType, func(t *profile.ValueType) bool { return t.Type == name }); i >= 0 {
			keep = append(keep, i)
		}
	}
	if len(keep) == 0 {
		return fmt.Errorf("has none of the sample types %s", strings.Join(want, ", "))
	}
	if len(keep) == len(d.SampleType) {
		return nil
	}
	m.changed = true
	types := make([]*profile.ValueType, len(keep))
	for j, i := range keep {
		types[j] = d.SampleType[i]
	}
	d.SampleType, d.DefaultSampleType = types, ""
	values := make([]int64, len(d.Sample)*len(keep))
	for n, s := range d.Sample {
		v := values[n*len(keep) : (n+1)*len(keep) : (n+1)*len(keep)]
		for j, i := range keep {
			v[j] = s.Value[i]
		}
		s.Value = v
	}
	d.Sample = slices.DeleteFunc(d.Sample, func(s *profile.Sample) bool {
		return !slices.ContainsFunc(s.Value, func(v int64) bool { return v != 0 })
	})
	return nil
}

// labels leaves those labels of samples that become few series, and those of spans.
func (m *mender) labels() {
	rules := m.rules()
	var sets []labelSet
	index := map[string]int{}
	for _, s := range m.d.Sample {
		if len(s.Label) == 0 {
			continue
		}
		kept := rules.of(s.Label)
		key := kept.key()
		i, ok := index[key]
		if !ok {
			i = len(sets)
			index[key] = i
			sets = append(sets, labelSet{labels: kept})
		}
		sets[i].samples = append(sets[i].samples, s)
		sets[i].total += s.Value[0]
	}
	crowded := excess(sets)
	for i := range sets {
		for _, s := range sets[i].samples {
			m.relabel(s, sets[i].labels, crowded[i])
		}
	}
}

// labelSet are the samples that would be one series.
type labelSet struct {
	labels  pairs
	samples []*profile.Sample
	total   int64
}

// excess are the sets beyond the largest maxSeries, one of which is left for those without labels.
func excess(sets []labelSet) map[int]bool {
	var order []int
	for i := range sets {
		if len(sets[i].labels) > 0 {
			order = append(order, i)
		}
	}
	if len(order) < maxSeries {
		return nil
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(sets[b].total, sets[a].total) })
	out := map[int]bool{}
	for _, i := range order[maxSeries-1:] {
		out[i] = true
	}
	return out
}

// relabel gives s the labels that are kept, and its span's.
func (m *mender) relabel(s *profile.Sample, kept pairs, crowded bool) {
	if crowded {
		kept = nil
	}
	labels := make(map[string][]string, len(kept)+2)
	for name, n := range spans {
		if v := s.Label[name]; len(v) > 0 && isID(v[0], n) {
			labels[name] = v[:1]
		}
	}
	for _, l := range kept {
		labels[l.Name] = []string{l.Value}
	}
	if maps.EqualFunc(labels, s.Label, slices.Equal) {
		return
	}
	m.changed = true
	m.e.stats.sampleLabels.Add(uint64(max(len(s.Label)-len(labels), 0)))
	s.Label = labels
}

func isID(s string, n int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == n
}

// pairs are labels by name.
type pairs []export.Label

func (p pairs) key() string {
	var b strings.Builder
	for _, l := range p {
		b.WriteString(l.Name + "\x00" + l.Value + "\x00")
	}
	return b.String()
}

// labelRules are what is left of a profile's labels of samples.
type labelRules struct {
	names map[string]string // of a label, to what it is called there; others are dropped
}

// rules looks at all labels of the profile: each name that is kept is one of at most maxLabels, and without a choice of the user's
// one of not too many values, since requests, users and the like would fill the server's index. All of it follows from the profile
// alone, so that it is the same when it is sent again.
func (m *mender) rules() *labelRules {
	values := map[string]map[string]bool{}
	for _, s := range m.d.Sample {
		for name, v := range s.Label {
			if values[name] == nil {
				values[name] = map[string]bool{}
			}
			if len(v) > 0 && len(values[name]) <= maxSeries {
				values[name][v[0]] = true
			}
		}
	}
	r := &labelRules{names: map[string]string{}}
	taken := map[string]bool{}
	for _, l := range m.r.series {
		taken[l.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		there := export.LabelName(name)
		switch {
		case !m.wanted(name, len(values[name])), taken[there], len(taken) >= maxLabels, len(there) > maxName, strings.HasPrefix(there, serverOwned):
		default:
			taken[there] = true
			r.names[name] = there
		}
	}
	return r
}

func (m *mender) wanted(name string, values int) bool {
	if spans[name] > 0 {
		return false // these are no series
	}
	if m.e.o.SampleLabels != nil {
		return slices.Contains(m.e.o.SampleLabels, name)
	}
	return values <= maxSeries
}

// of is what is kept of a sample's labels.
func (r *labelRules) of(labels map[string][]string) pairs {
	var kept pairs
	for name, v := range labels {
		if there, ok := r.names[name]; ok && len(v) > 0 && v[0] != "" {
			kept = append(kept, export.Label{Name: there, Value: value(v[0])})
		}
	}
	slices.SortFunc(kept, func(a, b export.Label) int { return strings.Compare(a.Name, b.Name) })
	return kept
}
