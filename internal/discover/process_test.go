package discover

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/export"
)

func TestLabelsOfAProcess(t *testing.T) {
	p := &Process{PID: 7, Comm: "shop-worker-lon", Exe: "/srv/shop", Program: &Program{GoVersion: "go1.26.8", Module: "example.com/shop/v2", Package: "example.com/shop/v2", Version: "v2.1.0"}}
	service, labels := p.Labels("h1")
	want := []export.Label{
		{Name: "comm", Value: "shop-worker-lon"}, {Name: "exe", Value: "/srv/shop"}, {Name: "go_version", Value: "go1.26.8"}, {Name: "host", Value: "h1"},
		{Name: "module", Value: "example.com/shop/v2"}, {Name: "module_version", Value: "v2.1.0"}, {Name: "pid", Value: "7"},
	}
	if d := gocmp.Diff(want, labels); d != "" || service != "shop" {
		t.Error(service, d)
	}
	bare := &Process{PID: 8, Comm: "x", Program: &Program{}}
	if service, labels := bare.Labels(""); service != "x" || len(labels) != 2 {
		t.Error(service, labels)
	}
}
