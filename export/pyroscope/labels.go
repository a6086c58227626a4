package pyroscope

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pprofd/pprofd/export"
)

// Limits of the server for the labels of a series (validation.max-label-names-per-series and so on): its defaults.
const (
	maxLabels = 30 // with those of samples that are merged in
	maxName   = 1024
	maxValue  = 2048
)

const (
	labelName    = "__name__"
	labelDelta   = "__delta__" // "false": values are differences already, or of the moment
	labelService = "service_name"
	labelSpy     = "pyroscope_spy"
	labelPID     = "pid"

	spy            = "pprofd"
	unknownService = "unknown_service"
	serverOwned    = "__" // prefix of names that the server gives
)

// first are labels that tell processes apart: they are kept where not all can be.
var first = []string{labelPID, "instance", "host"}

// series are the labels of the series that p belongs to, name and service_name among them, and how many were left out. Two
// processes never have the same: of two profiles of equal labels and time the server loses one.
func series(p *export.Profile, name string) (labels []export.Label, dropped int) {
	labels = append(make([]export.Label, 0, len(p.Labels)+5),
		export.Label{Name: labelName, Value: name}, export.Label{Name: labelDelta, Value: "false"},
		export.Label{Name: labelService, Value: service(p)}, export.Label{Name: labelSpy, Value: spy})
	seen := map[string]bool{labelName: true, labelDelta: true, labelService: true, labelSpy: true}
	own := slices.Clone(p.Labels)
	slices.SortStableFunc(own, func(a, b export.Label) int { return cmp.Compare(rank(a), rank(b)) })
	if p.PID != 0 && !slices.ContainsFunc(own, identifies) {
		own = slices.Insert(own, 0, export.Label{Name: labelPID, Value: strconv.Itoa(p.PID)})
	}
	for _, l := range own {
		n := export.LabelName(l.Name)
		switch {
		case l.Value == "" || n == labelService: // the first is as good as absent
		case seen[n] || strings.HasPrefix(n, serverOwned) || len(n) > maxName || len(labels) == maxLabels:
			dropped++
		default:
			seen[n] = true
			labels = append(labels, export.Label{Name: n, Value: value(l.Value)})
		}
	}
	return labels, dropped
}

func rank(l export.Label) int {
	if i := slices.Index(first, l.Name); i >= 0 {
		return i
	}
	return len(first)
}

func identifies(l export.Label) bool {
	return l.Value != "" && (l.Name == labelPID || l.Name == "instance")
}

func service(p *export.Profile) string {
	i := slices.IndexFunc(p.Labels, func(l export.Label) bool { return l.Name == labelService })
	labelled := ""
	if i >= 0 {
		labelled = p.Labels[i].Value
	}
	return value(cmp.Or(strings.TrimSpace(p.Service), strings.TrimSpace(labelled), strings.TrimSpace(p.Comm), unknownService))
}

// value makes s one that the server takes.
func value(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= maxValue {
		return s
	}
	cut := maxValue
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
