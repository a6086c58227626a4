package ui

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// Whatever is asked for, the file that a profile names is not opened. How pages are drawn is tested in package render; here are the ways
// to ask.
func TestNoPathOpensWhatAProfileNames(t *testing.T) {
	needs.Root(t)
	const shadow = "/etc/shadow"
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, shadow, unix.IN_OPEN|unix.IN_ACCESS); err != nil {
		t.Fatal(err)
	}
	opened := func() bool {
		n, err := unix.Read(fd, make([]byte, 1<<16))
		return n > 0 && !errors.Is(err, unix.EAGAIN)
	}
	if _, err := os.ReadFile(shadow); err != nil || !opened() {
		t.Fatalf("the test does not see who opens %s: %v", shadow, err)
	}
	h := shopHost()
	h.make = func(r pprofhttp.Request) (*profile.Profile, error) {
		p := stacksOf(r.Kind, stack{frames: []string{"main.f", "main.main"}, value: 5})
		p.Mapping[0].File, p.Mapping[0].BuildID = shadow, "../../../../etc"
		for _, f := range p.Function {
			f.Filename, f.Name = shadow, shadow
		}
		return p, nil
	}
	s := serve(t, h)
	path, a := s.follow(t, "/pid/4242/ui/heap/top")
	if !strings.Contains(a.body, shadow) {
		t.Fatal("the page does not show the name")
	}
	dir := strings.TrimSuffix(path, "top")
	for _, way := range []string{
		"source", "source/", "%73ource", "SOURCE", "disasm", "weblist", "list", "top/../source", "top/..%2fsource", "./source", "/source", "source;top", "top;/source", "source%00", "download/source",
		"top", "peek", "graph", "flamegraph", "download", "flamegraphold", "flamegraph2",
	} {
		for _, query := range []string{"", "?f=.", "?f=/etc/shadow&g=lines", "?base=heap&f=.", "?view=source&f=.", "?disasm=.&weblist=.&list=.&source_path=/&trim_path=/&output=/etc/shadow"} {
			if _, a := s.follow(t, dir+way+query); strings.Contains(a.body, "root:") || strings.Contains(way, "ource") && a.code == 200 {
				t.Errorf("%s%s: %d %s", way, query, a.code, a.body)
			}
		}
	}
	if opened() {
		t.Errorf("%s was opened", shadow)
	}
}
