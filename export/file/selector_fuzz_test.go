package file

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/export"
)

// FuzzLabels: labels that are written as a comment come back from it.
func FuzzLabels(f *testing.F) {
	f.Add("service_name", "api", "pod", `a"\`)
	f.Add("a", "\n}", "", `", x="`)
	f.Add("x", `\`, "y", "")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		parseLabels(labelsBegin + n1 + v1)
		parseLabels(labelsBegin + n1 + `="` + v1 + `", ` + n2 + `="` + v2 + `"` + labelsEnd)
		want := []export.Label{{Name: export.LabelName(n1), Value: v1}, {Name: export.LabelName(n2), Value: v2}}
		for i := range want {
			want[i].Value = strings.ToValidUTF8(want[i].Value, "\uFFFD")
		}
		got, ok := parseLabels(labelComment(want)[0])
		if d := gocmp.Diff(want, got); !ok || d != "" {
			t.Error(ok, d)
		}
	})
}

// FuzzSelector: no text makes it fail but by an error.
func FuzzSelector(f *testing.F) {
	f.Add("dir:d?service=a*&kind=cpu&pid=1,2&from=-1h&to=now&label=a=b")
	f.Add("dir:%zz?from=2026-11-23T09:15:00+01:00")
	now := time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text, now)
		if err != nil {
			return
		}
		if s.Dir == "" || !s.To.IsZero() && !s.From.Before(s.To) {
			t.Errorf("%+v", s)
		}
		s.Matches(&StoredFile{Service: "a", Kind: "cpu", PID: 1, Time: now})
		s.MatchesLabels([]export.Label{{Name: "a", Value: "b"}})
	})
}
