package main

import (
	"math"
	"slices"

	"github.com/pprofd/pprofd/benchmarks/board"
)

// interval is a median with bounds.
type interval struct{ median, low, high float64 }

// medianInterval is the median and the tightest pair of order statistics that holds the true one with a probability of
// at least 95 %; fewer than six values have none: then the bounds are the extremes.
func medianInterval(values []float64) interval {
	s := slices.Sorted(slices.Values(values))
	k := 0
	for k+1 < len(s)/2 && coverage(len(s), k+1) >= 0.95 {
		k++
	}
	return interval{board.Median(values), s[k], s[len(s)-1-k]}
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

// fitRSS lays base + perBinary*binaries + perProcess*processes through memory sizes, by least squares.
func fitRSS(points []rssPoint) (base, perBinary, perProcess float64, ok bool) {
	var a [3][4]float64 // normal equations
	for _, p := range points {
		x := [3]float64{1, float64(p.binaries), float64(p.processes)}
		for i := range 3 {
			for j := range 3 {
				a[i][j] += x[i] * x[j]
			}
			a[i][3] += x[i] * p.rss
		}
	}
	v, ok := solve(a)
	return v[0], v[1], v[2], ok
}

type rssPoint struct {
	binaries, processes int
	rss                 float64
}

// solve does Gaussian elimination.
func solve(a [3][4]float64) (x [3]float64, ok bool) {
	for c := range 3 {
		best := c
		for r := c + 1; r < 3; r++ {
			if math.Abs(a[r][c]) > math.Abs(a[best][c]) {
				best = r
			}
		}
		a[c], a[best] = a[best], a[c]
		if math.Abs(a[c][c]) < 1e-9 {
			return x, false
		}
		for r := range 3 {
			if r == c {
				continue
			}
			f := a[r][c] / a[c][c]
			for i := c; i < 4; i++ {
				a[r][i] -= f * a[c][i]
			}
		}
	}
	for i := range 3 {
		x[i] = a[i][3] / a[i][i]
	}
	return x, true
}
