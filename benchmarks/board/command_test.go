package board

import (
	"slices"
	"testing"
)

// TestNumbers: an argument has numbers, and what it has replaces what was there.
func TestNumbers(t *testing.T) {
	list := []int{7}
	set := Numbers(&list, "number of goroutines")
	if err := set("0,12"); err != nil || !slices.Equal(list, []int{0, 12}) {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range []string{"", "1,", "-1", "x"} {
		if err := set(bad); err == nil {
			t.Errorf("%q makes %v", bad, list)
		}
	}
}
