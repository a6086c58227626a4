package main

import (
	"os"
	"testing"

	"github.com/pprofd/pprofd/objfile"
)

func gnuBuildID(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	o, err := objfile.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	return o.BuildID()
}
