package render

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/driver"
	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// watched tells which of the files were opened. It is asked once.
func watched(t *testing.T, files ...string) (opened func() int) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, f := range files {
		if _, err := unix.InotifyAddWatch(fd, f, unix.IN_OPEN|unix.IN_ACCESS|unix.IN_MODIFY|unix.IN_CREATE); err != nil {
			t.Fatal(f, err)
		}
	}
	return func() int {
		b := make([]byte, 1<<16)
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EAGAIN) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return n / unix.SizeofInotifyEvent
	}
}

// naming is a profile that names file wherever a profile can name one.
func naming(t *testing.T, file string) []byte {
	return encode(t, func(p *profile.Profile) {
		up := strings.Repeat("../", 12)
		p.Mapping[0].File, p.Mapping[0].BuildID = file, up+filepath.Dir(file)
		p.Mapping = append(p.Mapping, &profile.Mapping{ID: 2, Start: 0x900000, Limit: 0xa00000, File: up + file, BuildID: "ab" + file, KernelRelocationSymbol: file})
		for _, f := range p.Function {
			f.Filename, f.Name, f.SystemName = file, file, file
		}
		p.Comments, p.DocURL = []string{file}, "file://"+file
		dot := `x" image="` + file + `" shapefile="` + file + `" URL="file://` + file // what pprof writes for dot
		p.Function[0].Filename = filepath.Base(dot)
		for _, s := range p.Sample {
			s.Label = map[string][]string{"file": {file, dot}, dot: {file}}
			s.NumLabel, s.NumUnit = map[string][]int64{dot: {5}, "bytes": {7}}, map[string][]string{dot: {"count"}, "bytes": {dot}}
		}
	}, map[string]int64{"a;b": 60, "c;b": 30})
}

// Paths in a profile come from the target. Here they lead to a file that only root may read, and to one that is watched.
func TestNothingThatAProfileNamesIsOpened(t *testing.T) {
	needs.Root(t)
	needs.Tool(t, "dot")
	home := t.TempDir()
	secret, settings := filepath.Join(home, "secret.go"), filepath.Join(home, "pprof", "settings.json")
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("HOME", home)
	t.Setenv("PPROF_BINARY_PATH", home+":/")
	t.Setenv("PPROF_TOOLS", home)
	if err := errors.Join(os.Mkdir(filepath.Dir(settings), 0o700),
		os.WriteFile(secret, []byte("package secret\n\nfunc tell() {}\n"), 0o600),
		os.WriteFile(settings, []byte(`{"configs":[{"name":"mine","hide":"cart"}]}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	files := []string{secret, "/etc/shadow", settings, home, filepath.Dir(settings)}
	// The driver as it is opens them: else this test shows nothing.
	opened := watched(t, files...)
	asItIs(t, naming(t, secret))
	if n := opened(); n < 2 { // the source, and the settings
		t.Fatalf("pprof's own server opens %d files: the test does not see it", n)
	}
	dot := exec.Command("dot", "-Tsvg")
	dot.Stdin = strings.NewReader(`digraph { x [image="` + secret + `"] }`)
	if err := dot.Run(); err != nil || opened() == 0 {
		t.Fatalf("dot opens no file that its input names: the test does not see it (%v)", err)
	}
	opened = watched(t, files...)
	r := New(Program()...)
	for _, file := range []string{secret, "/etc/shadow"} {
		data := naming(t, file)
		q := url.QueryEscape(file)
		for _, view := range []string{Flamegraph, Graph, Top, Peek, Download, "source", "disasm", "weblist", "saveconfig", "deleteconfig"} {
			for _, query := range []string{
				"", "f=" + q, "f=.&g=lines", "f=.&g=addresses", "g=files&s=" + q, "sf=" + q + "&h=" + q, "output=" + q, "source_path=" + q, "trim_path=/",
				"tools=" + q, "config=mine", "symbolize=local&buildid=" + q, "tagroot=file&tf=" + q, "base=" + q + "&diff_base=" + q, "intel=t&list=.&weblist=.&disasm=.",
				"nf=0&ef=0&trim=f&unit=" + url.QueryEscape(`x" image="`+file), "tagleaf=file,bytes&g=lines&nf=0",
			} {
				o := Order{View: view, Query: query, Profile: data}
				if query == "" {
					o.Base = shop(t)
				}
				p, err := r.Draw(t.Context(), o)
				if err == nil && (bytes.Contains(p.Body, []byte("func tell")) || bytes.Contains(p.Body, []byte("root:")) || bytes.Contains(p.Body, []byte(">mine<"))) {
					t.Errorf("%s?%s shows what is in the file", view, query)
				}
				links := view == Graph && err == nil && (bytes.Contains(p.Body, []byte("<image")) || bytes.Contains(p.Body, []byte("xlink:href")))
				if refused := err == nil && p.Status != 200 && (view != Peek || p.Status != 400); refused || links {
					t.Errorf("%s?%s: %d, or with links: %.300s", view, query, p.Status, p.Body)
				}
			}
		}
	}
	if n := opened(); n > 0 {
		t.Errorf("files were touched %d times", n)
	}
}

// asItIs asks pprof's own server for the source.
func asItIs(t *testing.T, data []byte) {
	t.Helper()
	p, err := profile.ParseData(data)
	if err != nil {
		t.Fatal(err)
	}
	err = driver.PProf(&driver.Options{
		Fetch: profiles{profileName: p}, Flagset: flags{}, UI: silent{}, Sym: noSymbols{}, Obj: noObjects{},
		HTTPServer: func(args *driver.HTTPServerArgs) error {
			for _, path := range []string{"/source?f=.", "/top"} {
				ask(t, args.Handlers, path)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, handlers map[string]http.Handler, target string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	w := httptest.NewRecorder()
	handlers[req.URL.Path].ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", target, w.Code, w.Body)
	}
}

// The process is nobody's, and has little of the environment: its error tells.
func TestTheProcessHasNoRights(t *testing.T) {
	needs.Root(t)
	t.Setenv("PPROFD_TEST_SECRET", "secret")
	_, err := New("/bin/sh", "-c", `echo uid $(/usr/bin/id -u), groups $(/usr/bin/id -G), $PPROFD_TEST_SECRET $HOME >&2; exit 1`).Draw(t.Context(), Order{View: Top})
	if err == nil || !strings.HasSuffix(err.Error(), "uid 65534, groups 65534, /dev/null") {
		t.Errorf("%v", err)
	}
}

// An agent that may not change its user, as the service of systemd, draws pages all the same.
func TestWithoutTheRightToChangeTheUser(t *testing.T) {
	needs.Root(t)
	setpriv := needs.Tool(t, "setpriv")
	without := []string{"--bounding-set", "-setuid,-setgid", "--inh-caps", "-all"}
	out, err := exec.CommandContext(t.Context(), setpriv, append(without, "/bin/sh", "-c", "setpriv --reuid 65534 --clear-groups true")...).CombinedOutput()
	if err == nil {
		t.Fatalf("the user can be changed all the same: %s", out)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err = exec.CommandContext(t.Context(), setpriv, append(without, program, "-test.v", "-test.run=^(TestViews|TestCompare)$")...).CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 2 {
		t.Errorf("%v: %s", err, out)
	}
}
