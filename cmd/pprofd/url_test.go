package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/agent/web"
)

// The URL that is printed is one that go tool pprof can use.
func TestURLIsForGoToolPprof(t *testing.T) {
	dir := t.TempDir()
	s, err := web.New(web.Config{Listen: "127.0.0.1:0", DataDir: dir}, web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	code, out, errOut := call(t, "url", "--listen", s.Addr().String(), "--dir", dir)
	if code != 0 {
		t.Fatal(errOut)
	}
	cmd := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-top", strings.TrimSpace(out))
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	if top, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(top), "Type: inuse_space") {
		t.Errorf("%v\n%s", err, top)
	}
}

func TestURL(t *testing.T) {
	dir := t.TempDir()
	const token = "0123456789abcdef/@"
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write("token", token+"\n")
	const auth = "pprofd:0123456789abcdef%2F%40@"
	mtls := write("mtls.yaml", "listen: '[::]:443'\nauth: {tls: {cert: c, key: k, client_ca: a}}\n")
	tls := write("tls.yaml", "listen: localhost:443\nauth: {tls: {cert: c, key: k}}\n")
	for name, c := range map[string]struct {
		args string
		code int
		want string
	}{
		"the agent itself":     {"", 0, "http://" + auth + "127.0.0.1:6061/debug/pprof/heap\n"},
		"a process":            {"-p 42 allocs", 0, "http://" + auth + "127.0.0.1:6061/pid/42/debug/pprof/allocs\n"},
		"CPU":                  {"-p 42 cpu --listen 127.0.0.1:7", 0, "http://" + auth + "127.0.0.1:7/pid/42/debug/pprof/profile\n"},
		"a service":            {"--service a/b%c cpu", 0, "http://" + auth + "127.0.0.1:6061/service/a%2Fb%25c/debug/pprof/profile\n"},
		"a service of dots":    {"--service .. heap", 0, "http://" + auth + "127.0.0.1:6061/service/%2E%2E/debug/pprof/heap\n"},
		"its page":             {"--service .. ui", 2, "has no page"},
		"the first page":       {"ui", 0, "http://" + auth + "127.0.0.1:6061/\n"},
		"the page of one":      {"-p 42 ui", 0, "http://" + auth + "127.0.0.1:6061/pid/42/ui/\n"},
		"of a service":         {"--service a/b ui", 0, "http://" + auth + "127.0.0.1:6061/service/a%2Fb/ui/\n"},
		"both":                 {"--service a -p 1", 2, "not -p 1 and --service a"},
		"TLS":                  {"--config " + tls, 0, "https://" + auth + "localhost:443/debug/pprof/heap\n"},
		"certificates":         {"--config " + mtls, 0, "https://[::1]:443/debug/pprof/heap\n"},
		"no token":             {"--insecure-loopback", 0, "http://127.0.0.1:6061/debug/pprof/heap\n"},
		"a Unix socket":        {"--listen unix:/s", 1, "curl --unix-socket /s http://localhost/debug/pprof/heap"},
		"nowhere":              {"--listen=", 1, "does not listen"},
		"any port":             {"--listen 127.0.0.1:0", 1, "another port with each start"},
		"no agent":             {"--dir " + dir + "/none", 1, "start `pprofd agent`"},
		"open to all":          {"--listen :80", 1, "others can reach this address"},
		"a kind that is none":  {"../x", 2, "no kind of profile"},
		"two kinds":            {"heap cpu", 2, "one kind"},
		"PID 0":                {"-p 0", 2, "0 is no PID"},
		"no such file":         {"--config " + dir + "/x", 1, "no such file"},
		"a key that is no key": {"--config " + write("bad.yaml", "\nx: y\n"), 1, "bad.yaml:2: unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"url", "--dir", dir}, strings.Fields(c.args)...)
			code, out, errOut := call(t, args...)
			if code != c.code || code == 0 && out != c.want || code != 0 && !strings.Contains(errOut, c.want) {
				t.Errorf("exit code %d\n%s%s", code, out, errOut)
			}
		})
	}
}
