package needs

import "testing"

func TestRequired(t *testing.T) {
	tests := map[string]struct {
		ci, list string
		want     bool
	}{
		"nothing is required by default":    {want: false},
		"CI requires everything":            {ci: "1", want: true},
		"CI=0 is not CI":                    {ci: "0", want: false},
		"a kind that is listed is required": {list: "root,bpf", want: true},
		"another kind is not":               {list: "root", want: false},
		"a prefix is not the kind":          {list: "bpfx", want: false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := required("bpf", tt.ci, tt.list); got != tt.want {
				t.Errorf("required(bpf, CI=%q, REQUIRE=%q) = %t, want %t", tt.ci, tt.list, got, tt.want)
			}
		})
	}
}

// recorder takes what a test would have been told.
type recorder struct {
	testing.TB
	skipped, failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Skipf(string, ...any)  { r.skipped = true }
func (r *recorder) Fatalf(string, ...any) { r.failed = true }

func TestAMissingToolSkipsHereAndFailsInCI(t *testing.T) {
	for _, ci := range []string{"", "1"} {
		t.Setenv("PPROFD_CI", ci)
		t.Setenv("PPROFD_REQUIRE", "")
		r := &recorder{TB: t}
		Tool(r, "no-such-program")
		if r.failed != (ci == "1") {
			t.Errorf("PPROFD_CI=%q: failed is %t", ci, r.failed)
		}
		if r.skipped == r.failed {
			t.Errorf("PPROFD_CI=%q: skipped %t, failed %t: want exactly one", ci, r.skipped, r.failed)
		}
	}
}
