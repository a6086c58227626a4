//go:build fgprof
// +build fgprof

package main

import (
	"net/http"

	"github.com/felixge/fgprof"
)

func init() { http.Handle("/debug/fgprof", fgprof.Handler()) }
