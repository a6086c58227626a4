package main

import (
	"math"
)

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
