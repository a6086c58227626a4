package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"regexp"
	"runtime/pprof"
	"sort"
	"strings"
	"sync"
	"text/template"
)

var paths = []struct {
	path    string
	handler func() handler
}{
	{"/orders", orders}, {"/search", search}, {"/report", report}, {"/digest", digest}, {"/tree", tree},
}

// handler answers one kind of request.
type handler func(http.ResponseWriter, *http.Request) error

// routes wraps each handler as services do: labels for profiles, statistics behind a lock, errors as answers.
func routes() http.Handler {
	mux := http.NewServeMux()
	var stats statistics
	for _, p := range paths {
		mux.Handle(p.path, labelled(p.path, stats.counted(p.path, answer(p.handler()))))
	}
	return mux
}

func labelled(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pprof.Do(r.Context(), pprof.Labels("path", path), func(ctx context.Context) { next.ServeHTTP(w, r.WithContext(ctx)) })
	})
}

type statistics struct {
	mu    sync.Mutex
	calls map[string]int
}

func (s *statistics) counted(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.calls == nil {
			s.calls = map[string]int{}
		}
		s.calls[path]++
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func answer(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// order is what the service deals with.
type order struct {
	ID       int               `json:"id"`
	Customer string            `json:"customer"`
	Items    []item            `json:"items"`
	Notes    map[string]string `json:"notes"`
}

type item struct {
	Name  string  `json:"name"`
	Count int     `json:"count"`
	Price float64 `json:"price"`
}

func someOrders(n int) []order {
	rng := rand.New(rand.NewSource(1))
	list := make([]order, n)
	for i := range list {
		list[i] = order{ID: i, Customer: fmt.Sprintf("customer %d", rng.Intn(1000)), Notes: map[string]string{"carrier": "post", "gift": "no"}}
		for j := 0; j < 4; j++ {
			list[i].Items = append(list[i].Items, item{fmt.Sprintf("article %d", rng.Intn(500)), 1 + rng.Intn(9), rng.Float64() * 100})
		}
	}
	return list
}

// orders decodes orders, sorts them by total, and encodes them.
func orders() handler {
	b, err := json.Marshal(someOrders(20))
	return func(w http.ResponseWriter, _ *http.Request) error {
		if err != nil {
			return err
		}
		var list []order
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		sort.Slice(list, func(i, j int) bool { return list[i].total() < list[j].total() })
		return json.NewEncoder(w).Encode(list)
	}
}

func (o *order) total() (sum float64) {
	for _, i := range o.Items {
		sum += float64(i.Count) * i.Price
	}
	return sum
}

// search looks for a pattern in text and counts words.
func search() handler {
	text := strings.Repeat("it was the best of times, it was the worst of times, order 4711-ab of customer 17 was lost\n", 30)
	pattern := regexp.MustCompile(`(\d+)-([a-z]+) of (customer|client) (\d+)`)
	return func(w http.ResponseWriter, _ *http.Request) error {
		words := map[string]int{}
		for _, word := range strings.Fields(text) {
			words[strings.ToUpper(word)]++
		}
		_, err := fmt.Fprintln(w, len(pattern.FindAllStringSubmatchIndex(text, -1)), len(words))
		return err
	}
}

// report renders orders and compresses the page.
func report() handler {
	page := template.Must(template.New("page").Parse(
		`{{range .}}<tr><td>{{.Customer | printf "%q"}}</td>{{range .Items}}<td>{{.Name}}: {{.Count}}</td>{{end}}</tr>{{end}}`))
	list := someOrders(20)
	return func(w http.ResponseWriter, _ *http.Request) error {
		var b bytes.Buffer
		if err := page.Execute(&b, list); err != nil {
			return err
		}
		z := gzip.NewWriter(w)
		if _, err := z.Write(b.Bytes()); err != nil {
			return err
		}
		return z.Close()
	}
}

// digest hashes.
func digest() handler {
	data := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	return func(w http.ResponseWriter, _ *http.Request) error {
		sum := sha256.Sum256(data)
		_, err := fmt.Fprintln(w, hex.EncodeToString(sum[:]))
		return err
	}
}

// node of a binary search tree.
type node struct {
	key         int
	left, right *node
}

func (n *node) insert(key int) *node {
	if n == nil {
		return &node{key: key}
	}
	if key < n.key {
		n.left = n.left.insert(key)
	} else {
		n.right = n.right.insert(key)
	}
	return n
}

func (n *node) sum() int {
	if n == nil {
		return 0
	}
	return n.key + n.left.sum() + n.right.sum()
}

// tree builds a tree and walks it, by recursion.
func tree() handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		var root *node
		x := uint32(7)
		for i := 0; i < 1000; i++ {
			x = x*1664525 + 1013904223
			root = root.insert(int(x >> 8))
		}
		_, err := fmt.Fprintln(w, root.sum())
		return err
	}
}
