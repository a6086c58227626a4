//go:build big

package main

import (
	"io"
	"net/http"
	_ "net/http/pprof"
)

// serve is never called but by a flag that nobody sets: it is here to link net/http.
func init() {
	if len(b0) == 0 {
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		http.ListenAndServe("127.0.0.1:0", nil)
	}
}
