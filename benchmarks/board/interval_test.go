package board

import "testing"

// TestMedianInterval: bounds as tables of order statistics have them (n = 10: 2nd and 9th, n = 20: 6th and 15th).
func TestMedianInterval(t *testing.T) {
	for n, k := range map[int]int{1: 1, 5: 1, 6: 1, 9: 2, 10: 2, 20: 6, 30: 10} {
		values := make([]float64, n)
		for i := range values {
			values[(i*7)%n] = float64(i + 1)
		}
		if n%7 == 0 {
			t.Fatal("7 must not divide", n)
		}
		got := MedianInterval(values)
		if want := (Interval{float64(n+1) / 2, float64(k), float64(n + 1 - k)}); got != want {
			t.Errorf("%d values: %+v, want %+v", n, got, want)
		}
	}
}
