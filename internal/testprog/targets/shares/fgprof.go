//go:build fgprof
// +build fgprof

package main

import (
	"fmt"
	"net"
	"net/http"

	"github.com/felixge/fgprof"
)

func init() {
	more = append(more, func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		fmt.Println("addr", l.Addr())
		http.Handle("/debug/fgprof", fgprof.Handler())
		go http.Serve(l, nil)
	})
}
