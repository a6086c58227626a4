package spool

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/disk"
)

// TestPowerFailure: what is offered is on the disk, whatever becomes of the acknowledgements.
func TestPowerFailure(t *testing.T) {
	d := disk.New(t)
	s := open(t, Options{Dir: filepath.Join(d.Dir, "spool")})
	defer s.Close()
	c := attach(t, s, "a")[0]
	for n := 1; n <= 50; n++ {
		fill(t, s, 10*n-9, 10*n)
		for range 3 {
			if err := c.Done(take(t, c, anything)); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := open(t, Options{Dir: filepath.Join(d.AfterFailure(t), "spool")})
	defer again.Close()
	a := attach(t, again, "a")[0]
	sent := drain(t, a)
	if diff := cmp.Diff(numbers(151, 500), sent[max(0, len(sent)-350):]); diff != "" {
		t.Error(diff)
	}
	if st := a.Stats(); len(st.Dropped) > 0 {
		t.Errorf("%+v, %+v", st, again.Stats())
	}
	t.Logf("%d of 150 are sent again", len(sent)-350)
}
