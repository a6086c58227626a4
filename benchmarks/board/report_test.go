package board

import "testing"

func TestMedian(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   float64
	}{
		"of one":            {[]float64{7}, 7},
		"of an odd number":  {[]float64{9, 1, 5}, 5},
		"of an even number": {[]float64{4, 1, 2, 100}, 3},
	} {
		if got := Median(c.values); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
