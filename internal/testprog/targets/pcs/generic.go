//go:build go1.18

package main

import "fmt"

type number interface{ ~int | ~float64 }

type list[T any] struct {
	v    T
	next *list[T]
}

func (l *list[T]) push(v T) *list[T] { return &list[T]{v, l} }

func (l *list[T]) String() string { return fmt.Sprint(l.v, l.next == nil) }

func sum[T number](vs ...T) (t T) {
	for _, v := range vs {
		t += v
	}
	return t
}

func apply[K comparable, V any](m map[K]V, f func(K, V) V) map[K]V {
	for k, v := range m {
		m[k] = f(k, v)
	}
	return m
}

func generic() string {
	var l *list[string]
	m := apply(map[string]float64{"a": 1}, func(k string, v float64) float64 { return v + float64(len(k)) })
	n := apply(map[int]value{1: {2}}, func(k int, v value) value { return value{v.n + k} })
	return fmt.Sprint(l.push("a").push("b"), sum(1, 2, 3), sum(1.5, 2.0), m, n)
}
