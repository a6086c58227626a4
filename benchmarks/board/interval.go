package board

import (
	"math"
	"slices"
)

// Interval is a median with bounds.
type Interval struct{ Median, Low, High float64 }

// MedianInterval is the median and the tightest pair of order statistics that holds the true one with a probability of
// at least 95 %; fewer than six values have none: then the bounds are the extremes.
func MedianInterval(values []float64) Interval {
	s := slices.Sorted(slices.Values(values))
	k := 0
	for k+1 < len(s)/2 && coverage(len(s), k+1) >= 0.95 {
		k++
	}
	return Interval{Median(values), s[k], s[len(s)-1-k]}
}

// coverage is the probability that the median lies between the k-th value from below and from above, counted from 0.
func coverage(n, k int) float64 {
	outside := 0.0
	for i := range k + 1 {
		outside += choose(n, i)
	}
	return 1 - 2*outside/math.Pow(2, float64(n))
}

func choose(n, k int) float64 {
	c := 1.0
	for i := range k {
		c = c * float64(n-i) / float64(i+1)
	}
	return c
}
