package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// start serves until the test ends; stop may be called before that.
func start(t *testing.T, c Config, o Options) (s *Server, stop func()) {
	t.Helper()
	s, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, serve(t, s)
}

func serve(t *testing.T, s *Server) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return stop
}

func loopback(t *testing.T) Config { return Config{Listen: "127.0.0.1:0", DataDir: t.TempDir()} }

// answer is what a request got.
type answer struct {
	code   int
	body   string
	header http.Header
}

// get asks for path; header is NAME: VALUE, and "Host" the host.
func get(t *testing.T, s *Server, path string, headers ...string) answer {
	t.Helper()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	return getBy(t, tr, "http://"+s.Addr().String()+path, headers...)
}

func getBy(t *testing.T, tr http.RoundTripper, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{resp.StatusCode, err.Error(), resp.Header}
	}
	return answer{resp.StatusCode, string(b), resp.Header}
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func tokenOf(t *testing.T, c Config) string {
	t.Helper()
	text, err := c.Token()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWhatIsOpen(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "of_the_agent"}, func() float64 { return 7 }))
	var ready error
	s, _ := start(t, loopback(t), Options{Registry: reg, Ready: func() error { return ready }})
	get(t, s, "/secret")
	if a := get(t, s, "/metrics"); a.code != 200 || !strings.Contains(a.body, "of_the_agent 7\n") || !strings.Contains(a.body, `pprofd_http_refused_total{reason="authentication"} 1`) {
		t.Errorf("%d\n%s", a.code, a.body)
	}
	if a := get(t, s, "/healthz"); a.code != 200 || a.body != "ok\n" {
		t.Errorf("%+v", a)
	}
	ready = errors.New("no process is profiled yet")
	if a := get(t, s, "/readyz"); a.code != 503 || a.body != "no process is profiled yet\n" {
		t.Errorf("%+v", a)
	}
	if a := get(t, s, "/metrics"); !strings.Contains(a.body, `pprofd_http_requests_total{handler="GET /readyz"} 1`) {
		t.Error(a.body)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	c := loopback(t)
	s, err := New(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Handle(Protected, "GET /pid/{pid}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "profile of ", r.PathValue("pid")) }))
	serve(t, s)
	token := tokenOf(t, c)
	for name, a := range map[string]struct {
		header string
		want   int
	}{
		"nothing":                          {"X: y", 401},
		"Basic":                            {basic("pprofd", token), 200},
		"Bearer":                           {"Authorization: Bearer " + token, 200},
		"bearer in lower case":             {"Authorization: bearer " + token, 200},
		"another user":                     {basic("root", token), 401},
		"no password":                      {basic("pprofd", ""), 401},
		"the token without its end":        {basic("pprofd", token[:len(token)-1]), 401},
		"the token with more":              {"Authorization: Bearer " + token + "x", 401},
		"the token in another place":       {"Authorization: " + token, 401},
		"Basic that is not base64":         {"Authorization: Basic " + token, 401},
		"a token of nobody, as long as it": {"Authorization: Bearer " + strings.Repeat("x", len(token)), 401},
	} {
		got := get(t, s, "/pid/7", a.header)
		if got.code != a.want || (got.code == 200) != (got.body == "profile of 7") {
			t.Errorf("%s: %+v", name, got)
		}
		if got.code == 401 && (!strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") || !strings.Contains(got.body, "pprofd url")) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, path := range []string{"/", "/nothing", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/metrics/", "//metrics", "/pid/7/../../metrics"} {
		if got := get(t, s, path); got.code != 401 {
			t.Errorf("%s without a token: %+v", path, got)
		}
	}
	if got := get(t, s, "/nothing", basic("pprofd", token)); got.code != 404 {
		t.Errorf("%+v", got)
	}
}

// The URL is what go tool pprof can use.
func TestGoToolPprof(t *testing.T) {
	c := loopback(t)
	s, _ := start(t, c, Options{})
	u := url.URL{Scheme: "http", User: url.UserPassword(User, tokenOf(t, c)), Host: s.Addr().String(), Path: "/debug/pprof/heap"}
	cmd := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-top", u.String())
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Type: inuse_space") {
		t.Errorf("%v\n%s", err, out)
	}
	u.User = nil
	cmd = exec.CommandContext(t.Context(), "go", "tool", "pprof", "-top", u.String())
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "401") {
		t.Errorf("without the token: %v\n%s", err, out)
	}
}

func TestOtherSites(t *testing.T) {
	c := loopback(t)
	c.Hosts = []string{"pprofd.example"}
	s, _ := start(t, c, Options{})
	addr, auth := s.Addr().String(), basic(User, tokenOf(t, c))
	for name, a := range map[string]struct {
		headers     []string
		protected   int
		open        int
		wantedCause string
	}{
		"a tool":                        {nil, 200, 200, ""},
		"localhost":                     {[]string{"Host: LocalHost:6061"}, 200, 200, ""},
		"an IPv6 address":               {[]string{"Host: [::1]:6061"}, 200, 200, ""},
		"an IPv6 address, no port":      {[]string{"Host: [::1]"}, 200, 200, ""},
		"a name that was configured":    {[]string{"Host: pprofd.example."}, 200, 200, ""},
		"DNS rebinding":                 {[]string{"Host: evil.example:6061"}, 403, 403, "auth.hosts"},
		"a name that begins like an IP": {[]string{"Host: 127.0.0.1.evil.example"}, 403, 403, "auth.hosts"},
		"a page of its own":             {[]string{"Origin: http://" + addr, "Sec-Fetch-Site: same-origin"}, 200, 200, ""},
		"fetch by another site":         {[]string{"Origin: http://evil.example"}, 403, 403, "other sites"},
		"fetch by another port":         {[]string{"Origin: http://127.0.0.1:1"}, 403, 403, "other sites"},
		"a sandboxed frame":             {[]string{"Origin: null"}, 403, 403, "other sites"},
		"two origins":                   {[]string{"Origin: http://" + addr, "Origin: http://evil.example"}, 403, 403, "other sites"},
		"an image in another site":      {[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, 403, 403, "other sites"},
		"a link in another site":        {[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"}, 403, 200, "other sites"},
		"typed into a browser":          {[]string{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"}, 200, 200, ""},
	} {
		p, o := get(t, s, "/debug/pprof/cmdline", append(a.headers, auth)...), get(t, s, "/healthz", a.headers...)
		if p.code != a.protected || o.code != a.open || p.code == 403 && !strings.Contains(p.body, a.wantedCause) {
			t.Errorf("%s: protected %d %s, open %d %s", name, p.code, p.body, o.code, o.body)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   string // "": it may be
	}{
		"loopback":                           {Config{Listen: "127.0.0.1:6061", DataDir: "/d"}, ""},
		"localhost":                          {Config{Listen: "localhost:6061", DataDir: "/d"}, ""},
		"IPv6 loopback":                      {Config{Listen: "[::1]:6061", DataDir: "/d"}, ""},
		"loopback, IPv4 in IPv6":             {Config{Listen: "[::ffff:127.0.0.1]:6061", DataDir: "/d"}, ""},
		"loopback without a token":           {Config{Listen: "127.0.0.2:0", InsecureLoopback: true}, ""},
		"everywhere":                         {Config{Listen: ":6061", DataDir: "/d"}, "others can reach this address: give token_file"},
		"an address":                         {Config{Listen: "10.0.0.1:6061", DataDir: "/d"}, "others can reach this address"},
		"a name":                             {Config{Listen: "localhost.example:6061", DataDir: "/d"}, "others can reach this address"},
		"an address, TLS":                    {Config{Listen: "10.0.0.1:6061", DataDir: "/d", TLS: TLS{Cert: "c", Key: "k"}}, "others can reach this address"},
		"an address, insecure":               {Config{Listen: "10.0.0.1:6061", InsecureLoopback: true}, "insecure_loopback is for loopback addresses only"},
		"an address with a token":            {Config{Listen: "10.0.0.1:6061", TokenFile: "/t"}, ""},
		"an address with mTLS":               {Config{Listen: "10.0.0.1:6061", TLS: TLS{"c", "k", "ca"}}, ""},
		"a certificate without key":          {Config{Listen: "127.0.0.1:1", DataDir: "/d", TLS: TLS{Cert: "c"}}, "cert and key need each other"},
		"an authority without certificate":   {Config{Listen: "127.0.0.1:1", DataDir: "/d", TLS: TLS{ClientCA: "c"}}, "client_ca needs cert and key"},
		"a token and none":                   {Config{Listen: "127.0.0.1:1", TokenFile: "/t", InsecureLoopback: true}, "remove one of them"},
		"a token and certificates":           {Config{Listen: "127.0.0.1:1", TokenFile: "/t", TLS: TLS{"c", "k", "ca"}}, "in place of a token"},
		"nowhere to keep a token":            {Config{Listen: "127.0.0.1:1"}, "give token_file"},
		"no port":                            {Config{Listen: "127.0.0.1", DataDir: "/d"}, "give HOST:PORT"},
		"a URL":                              {Config{Listen: "http://127.0.0.1:80", DataDir: "/d"}, "give HOST:PORT"},
		"a Unix socket":                      {Config{Listen: "unix:/run/x"}, ""},
		"a Unix socket, relative":            {Config{Listen: "unix:x"}, "is absolute"},
		"a Unix socket with TLS":             {Config{Listen: "unix:/x", TLS: TLS{Cert: "c", Key: "k"}}, "has no TLS"},
		"a Unix socket with a token of ours": {Config{Listen: "unix:/x", TokenFile: "/t"}, "needs no token"},
	} {
		err := c.config.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil {
			if s, err := New(c.config, Options{}); err == nil {
				s.Close()
				t.Errorf("%s: it listens", name)
			}
		}
	}
}

func TestTokenIsMadeOnce(t *testing.T) {
	c := loopback(t)
	c.DataDir = filepath.Join(c.DataDir, "lib", "pprofd")
	if _, err := c.Token(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Token does not make one: %v", err)
	}
	_, stop := start(t, c, Options{})
	stop()
	first := tokenOf(t, c)
	if b, err := base64.RawURLEncoding.DecodeString(first); err != nil || len(b) != 32 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if st, err := os.Stat(filepath.Join(c.DataDir, "token")); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if st, err := os.Stat(c.DataDir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	s, _ := start(t, c, Options{})
	if tokenOf(t, c) != first {
		t.Error("another token after a restart")
	}
	if entries, err := os.ReadDir(c.DataDir); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
	const second = "a-token-of-my-own"
	if err := os.WriteFile(filepath.Join(c.DataDir, "token"), []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if a, b := get(t, s, "/debug/pprof/cmdline", basic(User, first)), get(t, s, "/debug/pprof/cmdline", basic(User, second)); a.code != 401 || b.code != 200 {
		t.Errorf("after Reload: the old token %d, the new one %d", a.code, b.code)
	}
	if err := os.WriteFile(filepath.Join(c.DataDir, "token"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil || get(t, s, "/debug/pprof/cmdline", basic(User, second)).code != 200 {
		t.Errorf("a bad token was taken: %v", err)
	}
}

func TestTokenFilesThatOthersKnow(t *testing.T) {
	needs.Root(t)
	for name, c := range map[string]struct {
		prepare  func(dir, file string) error
		explicit bool
		want     string
	}{
		"readable for the group":     {func(_, f string) error { return os.Chmod(f, 0o640) }, false, "chmod 600"},
		"of another user":            {func(_, f string) error { return os.Chown(f, 12345, -1) }, false, "another user"},
		"a symbolic link":            {func(d, f string) error { return errors.Join(os.Rename(f, d+"/x"), os.Symlink("x", f)) }, false, "too many levels"},
		"a pipe":                     {func(_, f string) error { return errors.Join(os.Remove(f), syscall.Mkfifo(f, 0o600)) }, false, "no regular file"},
		"empty":                      {func(_, f string) error { return os.Truncate(f, 0) }, false, "shorter than 16"},
		"two words":                  {func(_, f string) error { return os.WriteFile(f, []byte("0123456789 0123456789"), 0) }, false, "one word"},
		"huge":                       {func(_, f string) error { return os.WriteFile(f, bytes.Repeat([]byte("x"), 5000), 0) }, false, "at most 4096"},
		"in a directory of others":   {func(d, f string) error { return errors.Join(os.Remove(f), os.Chmod(d, 0o777)) }, false, "chmod go-w"},
		"chosen, readable for all":   {func(_, f string) error { return os.Chmod(f, 0o644) }, true, "others may read"},
		"chosen, not there":          {func(_, f string) error { return os.Remove(f) }, true, "no such file"},
		"chosen, for the group":      {func(_, f string) error { return os.Chmod(f, 0o640) }, true, ""},
		"chosen, as Kubernetes does": {func(d, f string) error { return errors.Join(os.Rename(f, d+"/x"), os.Symlink("x", f)) }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "token")
			if err := errors.Join(os.WriteFile(file, []byte(strings.Repeat("t", 20)), 0o600), c.prepare(dir, file)); err != nil {
				t.Fatal(err)
			}
			config := Config{Listen: "127.0.0.1:0", DataDir: dir}
			if c.explicit {
				config = Config{Listen: "127.0.0.1:0", TokenFile: file}
			}
			s, err := New(config, Options{})
			if err == nil {
				s.Close()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestInsecureLoopback(t *testing.T) {
	s, _ := start(t, Config{Listen: "127.0.0.1:0", InsecureLoopback: true}, Options{})
	if a := get(t, s, "/debug/pprof/cmdline"); a.code != 200 {
		t.Errorf("%+v", a)
	}
	if a := get(t, s, "/debug/pprof/cmdline", "Host: evil.example"); a.code != 403 {
		t.Errorf("%+v", a)
	}
	if _, err := New(Config{Listen: s.Addr().String(), InsecureLoopback: true}, Options{}); err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("%v", err)
	}
}

func unixTransport(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

func TestUnixSocket(t *testing.T) {
	if path := os.Getenv("PPROFD_TEST_SOCKET"); path != "" { // as another user
		_, err := net.Dial("unix", path)
		fmt.Println(err)
		return
	}
	needs.Root(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // they are closed to others
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "s")
	_, stop := start(t, Config{Listen: "unix:" + path}, Options{})
	if st, err := os.Lstat(path); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	tr := unixTransport(path)
	if a := getBy(t, tr, "http://any.name/debug/pprof/cmdline"); a.code != 200 {
		t.Errorf("%+v", a)
	}
	if a := getBy(t, tr, "http://x/debug/pprof/cmdline", "Origin: http://evil.example"); a.code != 403 {
		t.Errorf("%+v", a)
	}
	tr.CloseIdleConnections()
	if out := asOther(t, path); !strings.Contains(out, "permission denied") {
		t.Errorf("another user: %s", out)
	}
	if _, err := New(Config{Listen: "unix:" + path}, Options{}); err == nil || !strings.Contains(err.Error(), "another program listens") {
		t.Errorf("%v", err)
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func asOther(t *testing.T, path string) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(filepath.Dir(path), "test")
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestUnixSocket$")
	cmd.Env, cmd.Dir = append(os.Environ(), "PPROFD_TEST_SOCKET="+path), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return string(out)
}

// An agent that was killed leaves its socket behind; something else is not removed.
func TestUnixSocketThatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	_, stop := start(t, Config{Listen: "unix:" + path}, Options{})
	stop()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Listen: "unix:" + path}, Options{}); err == nil || !strings.Contains(err.Error(), "something else than a socket") {
		t.Errorf("%v", err)
	}
}

func TestLimits(t *testing.T) {
	c := loopback(t)
	s, _ := start(t, c, Options{})
	if a := get(t, s, "/healthz", "X: "+strings.Repeat("x", 2*maxHeader)); a.code != 431 {
		t.Errorf("large header: %+v", a)
	}
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	slow := dial()
	fmt.Fprint(slow, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
	began := time.Now()
	for range maxConns - 1 {
		dial()
	}
	beyond := dial()
	_ = beyond.SetDeadline(time.Now().Add(4 * time.Second))
	if n, err := beyond.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one connection too many: %v", err)
	}
	_ = slow.SetDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(slow)
	if d := time.Since(began); err != nil || d < headerTime/2 || d > 2*headerTime {
		t.Errorf("a request that does not end: %q, %v after %v", b, err, d)
	}
	for a := (answer{}); a.code != 200; time.Sleep(10 * time.Millisecond) { // the others were closed, too: they have sent nothing
		if a = get(t, s, "/metrics"); a.code == 200 && strings.Contains(a.body, `pprofd_http_refused_total{reason="connections"} 0`) {
			t.Error(a.body)
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("connections are not free again")
		}
	}
}

// A connection that asked for what is open keeps no deadline of that.
func TestPatience(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 16 s")
	}
	c := loopback(t)
	s, err := New(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Handle(Protected, "GET /slow", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(openTime + time.Second):
			fmt.Fprint(w, "done")
		case <-r.Context().Done():
		}
	}))
	serve(t, s)
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, path := range []string{"/healthz", "/slow"} {
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", path, tokenOf(t, c))
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(path, err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || len(b) < 3 {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		resp.Body.Close()
	}
}

// What ends within 2 s is answered, what takes longer is cut off.
func TestShutdown(t *testing.T) {
	s, err := New(Config{Listen: "127.0.0.1:0", InsecureLoopback: true}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan bool, 2)
	s.Handle(Protected, "GET /sleep/{d}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		d, _ := time.ParseDuration(r.PathValue("d"))
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "slept")
	}))
	stop := serve(t, s)
	short, long := make(chan answer), make(chan answer)
	go func() { short <- get(t, s, "/sleep/500ms") }()
	go func() { long <- get(t, s, "/sleep/1h") }()
	<-entered
	<-entered
	began := time.Now()
	stop()
	if d := time.Since(began); d < shutdownTime || d > shutdownTime+2*time.Second {
		t.Errorf("stopped after %v", d)
	}
	if a := <-short; a.code != 200 || a.body != "slept" {
		t.Errorf("%+v", a)
	}
	if a := <-long; a.code != 0 {
		t.Errorf("%+v", a)
	}
	if a := get(t, s, "/healthz"); !strings.Contains(a.body, "refused") {
		t.Errorf("%+v", a)
	}
}
