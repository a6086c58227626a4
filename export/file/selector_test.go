package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/export"
)

func TestSelectorText(t *testing.T) {
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 11, 23, 9, 30, 0, 0, zone)
	at := func(h, m int) time.Time { return time.Date(2026, 11, 23, h, m, 0, 0, zone) }
	for text, want := range map[string]Selector{
		"dir:/d":                  {Dir: "/d"},
		"dir:d?":                  {Dir: "d"},
		"dir:a%3Fb?service=x%26y": {Dir: "a?b", Service: "x&y"},
		"dir:d?service=web*&kind=cpu&pid=1,2&pid=3": {Dir: "d", Service: "web*", Kind: "cpu", PIDs: []int{1, 2, 3}},
		"dir:d?label=pod=web-1&label=a=b=c":         {Dir: "d", Labels: []export.Label{{Name: "pod", Value: "web-1"}, {Name: "a", Value: "b=c"}}},
		"dir:d?from=-1h30m&to=now":                  {Dir: "d", From: at(8, 0), To: now},
		"dir:d?from=-7d":                            {Dir: "d", From: now.AddDate(0, 0, -7)},
		"dir:d?from=2026-11-23":                     {Dir: "d", From: at(0, 0)},
		"dir:d?from=2026-11-23T09:15":               {Dir: "d", From: at(9, 15)},
		"dir:d?from=2026-11-23 09:15:00":            {Dir: "d", From: at(9, 15)},
		"dir:d?from=2026-11-23T09:15:00+01:00":      {Dir: "d", From: at(9, 15)},
		"dir:d?from=2026-11-23T08:15:00.000Z":       {Dir: "d", From: at(9, 15)},
	} {
		got, err := ParseSelector(text, now)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := gocmp.Diff(&want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

func TestSelectorErrors(t *testing.T) {
	for text, want := range map[string]string{
		"/d":                          "dir:DIR is wanted",
		"dir:":                        "dir:DIR is wanted",
		"dir:d%zz":                    "dir:DIR is wanted",
		"dir:d?sevice=x":              `"sevice" is unknown: there are service, kind`,
		"dir:d?service=":              "service has no value",
		"dir:d?service":               "service has no value",
		"dir:d?service=[":             "service: ",
		"dir:d?service=%zz":           "invalid URL escape",
		"dir:d?pid=x":                 `"x" is no PID`,
		"dir:d?pid=1,":                `"" is no PID`,
		"dir:d?pid=-1":                `"-1" is no PID`,
		"dir:d?label=x":               "NAME=VALUE",
		"dir:d?label=x=[":             "label: ",
		"dir:d?from=yesterday":        `"yesterday" is no time`,
		"dir:d?from=-5":               "is no time",
		"dir:d?from=--1h":             "is no time",
		"dir:d?from=-99999d":          "is no time",
		"dir:d?to=-2h&from=-1h":       "from is not before to",
		"dir:d?from=-1h&to=2001-01-0": "is no time",
	} {
		if s, err := ParseSelector(text, time.Now()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %+v, %v; wanted %q", text, s, err, want)
		}
	}
}

func filled(t *testing.T) (dir string, at time.Time) {
	t.Helper()
	dir, at = t.TempDir(), time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	s := indexedStore(t, StoreOptions{Dir: dir})
	for i, service := range []string{"web", "web-2", "a/b [x]"} {
		for minute := range 3 {
			p := storeProfile(service, 10+i, at.Add(time.Duration(minute)*time.Minute))
			p.Labels = []export.Label{{Name: "host", Value: "h"}, {Name: "pod", Value: service + "\"\\\n}"}}
			save(t, s, p)
			p.Kind = "heap"
			save(t, s, p)
		}
	}
	return dir, at
}

func chosen(t *testing.T, s *Selector) (paths []string) {
	t.Helper()
	for f, err := range s.Files() {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, f.Path)
	}
	slices.Sort(paths)
	return paths
}

func TestSelectorChooses(t *testing.T) {
	dir, at := filled(t)
	for conditions, want := range map[string]int{
		"":                                18,
		"service=web":                     6,
		"service=web*":                    12,
		"service=a/b [x]":                 6, // not as a pattern
		"service=a/b*":                    6,
		"service=*":                       12,
		"kind=cpu":                        9,
		"kind=c*&service=web":             3,
		"pid=10,12&kind=heap":             6,
		"pid=99":                          0,
		"from=" + at.Format(time.RFC3339): 18,
		"to=" + at.Format(time.RFC3339):   0,
		"from=" + at.Add(time.Minute).Format(time.RFC3339) + "&to=" + at.Add(2*time.Minute).Format(time.RFC3339): 6,
		"label=host=h":             18,
		"label=host=x":             0,
		"label=none=h":             0,
		"label=pod=web-2*&pid=11":  6,
		"label=pod=web*&kind=heap": 6,
		"label=service_name=web":   6,
	} {
		s, err := ParseSelector("dir:"+dir+"?"+conditions, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, s); len(got) != want {
			t.Errorf("%s: %d: %q", conditions, len(got), got)
		}
	}
}

func TestLabelsComeBack(t *testing.T) {
	for _, labels := range [][]export.Label{
		{{Name: "a", Value: "b"}},
		{{Name: "service_name", Value: "x"}, {Name: "pod", Value: `q"\` + "\n" + `", c="d"}`}, {Name: "empty"}, {Name: "w", Value: `\n`}},
	} {
		got, ok := parseLabels(labelComment(labels)[0])
		if d := gocmp.Diff(labels, got); d != "" || !ok {
			t.Error(ok, d)
		}
	}
	for _, c := range []string{"", "labels", "labels {", "labels {}", "labels {a}", `labels {a="b}`, `labels {a="b"`, `labels {a="b" c="d"}`, `labels {a="b", }`, `labels {a="b\"}`} {
		if got, ok := parseLabels(c); ok {
			t.Errorf("%q: %v", c, got)
		}
	}
}

// What leads out of the directory, or is no file, is not read, whatever it is called.
func TestReaderTrustsNoName(t *testing.T) {
	dir, _ := filled(t)
	secret := filepath.Join(t.TempDir(), "cpu-20260102T030405.000Z.pb.gz")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	process := filepath.Join(dir, "web/10-100")
	name := func(second string) string { return filepath.Join(process, "cpu-20260102T0304"+second+".000Z.pb.gz") }
	err := errors.Join(os.Symlink(secret, name("01")), unix.Mkfifo(name("02"), 0o600), os.Mkdir(name("03"), 0o700),
		os.Symlink(filepath.Dir(secret), filepath.Join(dir, "web/11-100")), os.WriteFile(filepath.Join(process, "cpu-x;rm -rf.pb.gz"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if got := chosen(t, &Selector{Dir: dir}); len(got) != 18 {
		t.Errorf("%q", got)
	}
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for second, want := range map[string]string{"01": "escapes", "02": "no regular file", "03": "no regular file"} { // exchanged after they were listed
		f := StoredFile{Path: "web/10-100/" + filepath.Base(name(second))}
		if _, _, err := r.Read(&f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", second, err)
		}
	}
	if _, _, err := r.Read(&StoredFile{Path: "web/10-100/gone"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, _, err := r.Read(&StoredFile{Path: "../" + filepath.Base(filepath.Dir(secret)) + "/" + filepath.Base(secret)}); err == nil {
		t.Error("read outside")
	}
}

// The directory is read without a lock while a Store writes and removes.
func TestReadWhileAStoreWrites(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, StoreOptions{Dir: dir, MaxFiles: 50})
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	var writer sync.WaitGroup
	var done atomic.Bool
	writer.Go(func() {
		defer done.Store(true)
		for i := range 3000 {
			if err := s.Export(t.Context(), storeProfile("web", 1+i%7, at.Add(time.Duration(i)*time.Second))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer writer.Wait()
	read := 0
	for !done.Load() {
		r, err := OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range (&Selector{Dir: dir, Kind: "cpu"}).Files() {
			if err != nil {
				t.Fatal(err)
			}
			p, labels, err := r.Read(&f)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil || len(p.Sample) == 0 || len(labels) != 1 {
				t.Fatalf("%s: %v, %v", f.Path, labels, err)
			}
			read++
		}
		r.Close()
	}
	if read < 100 {
		t.Errorf("%d profiles read", read)
	}
}
