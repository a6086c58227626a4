package parca

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/parca/profilestorepb"
)

// Names of labels that mean something.
const (
	labelName     = "__name__"
	labelService  = "service_name"
	labelPID      = "pid"
	labelInstance = "instance"
	labelHost     = "host"
	labelNode     = "node" // the server's list of agents shows it
)

const (
	unknownService = "unknown_service"
	maxValue       = 2 << 10 // bytes; the server has no limit
)

// labels are those of the series of p. Two processes never have the same.
func labels(p *export.Profile) []export.Label {
	service := cmp.Or(p.Service, find(p.Labels, labelService), p.Comm, unknownService)
	list := []export.Label{{Name: labelName, Value: kindOf(p).name}, {Name: labelService, Value: service}}
	list = append(list, p.Labels...)
	if p.PID != 0 && find(p.Labels, labelPID) == "" && find(p.Labels, labelInstance) == "" {
		list = append(list, export.Label{Name: labelPID, Value: strconv.Itoa(p.PID)})
	}
	return append(list, export.Label{Name: labelNode, Value: find(p.Labels, labelHost)})
}

func find(list []export.Label, name string) string {
	i := slices.IndexFunc(list, func(l export.Label) bool { return l.Name == name })
	if i < 0 {
		return ""
	}
	return list[i].Value
}

// labelSet is what is sent: of two labels of a name the first counts; the server takes empty values for absent.
func labelSet(lists ...[]export.Label) *profilestorepb.LabelSet {
	set := &profilestorepb.LabelSet{}
	seen := make(map[string]bool)
	for _, list := range lists {
		for _, l := range list {
			name := export.LabelName(l.Name)
			if l.Value == "" || seen[name] || strings.HasPrefix(name, "__") && name != labelName {
				continue
			}
			seen[name] = true
			set.Labels = append(set.Labels, &profilestorepb.Label{Name: name, Value: clip(l.Value, maxValue)})
		}
	}
	return set
}

// clip makes s valid text of at most limit bytes.
func clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= limit {
		return s
	}
	for !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
