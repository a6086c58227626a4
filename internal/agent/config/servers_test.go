package config

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestServers(t *testing.T) {
	c, err := Parse("f", []byte(everything), nil)
	if err != nil {
		t.Fatal(err)
	}
	server := Server{Timeout: 30 * time.Second, Parallel: 32}
	named := func(name, address string) Server {
		s := server
		s.Name, s.Address = name, address
		return s
	}
	parca := named("parca:parca:7070", "parca:7070")
	parca.BearerTokenFile = "/t"
	want := []any{
		[]Pyroscope{
			{
				Server: Server{
					Name: "main", Address: "https://p.example", TLS: TLS{"/ca", "/c", "/k", "s", true}, Headers: map[string]string{"X-Zone": "a"},
					Timeout: 5 * time.Second, Parallel: 2,
				},
				API: "ingest", Tenant: "t", BasicAuth: BasicAuth{"u", "/p"}, SampleLabels: []string{"endpoint"},
			},
			{Server: named("pyroscope:q.example:4040", "http://q.example:4040"), API: "push", SampleLabels: []string{"*"}},
		},
		[]Parca{{Server: parca, Insecure: true, SampleLabels: []string{"a", "b"}}},
		[]OTLP{{
			Server: named("otlp:o:4318", "http://o:4318"), Protocol: "http", Experimental: true, Metrics: true, Interval: 10 * time.Second,
		}},
		Spool{"/srv/s", 10 << 20, 2 * time.Hour},
	}
	if d := cmp.Diff(want, []any{c.Pyroscope, c.Parca, c.OTLP, c.Spool}); d != "" {
		t.Error(d)
	}
}

// TestServerFlags: a flag stands for a server, and for that it may be experimental.
func TestServerFlags(t *testing.T) {
	c, err := Parse("f", []byte("pyroscope: http://x:1\n"), map[string][]string{
		"pyroscope": {"http://a:1", "http://b:2"}, "parca": {"p:7070", "https://p:2"}, "otlp": {"o:4317", "https://o:2"}, "dir": {"/d"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Pyroscope) != 2 || c.Pyroscope[1].Address != "http://b:2" || c.Parca[0].Name != "parca:p:7070" || !c.OTLP[0].Experimental || !c.Allocs.Enabled ||
		!c.Parca[0].Insecure || c.Parca[1].Insecure || !c.OTLP[0].Insecure || c.OTLP[1].Insecure || !c.OTLP[1].Experimental ||
		c.SpoolPath() != "/d/.spool" {
		t.Errorf("%+v", c)
	}
	p := printed(t, c)
	if again, err := Parse("p", []byte(p), nil); err != nil || printed(t, again) != p {
		t.Errorf("%v\n%s", err, p)
	}
	_, err = Parse("f", nil, map[string][]string{"parca": {"p"}, "pyroscope": {"p:1"}})
	want := `--parca: address: "p" is no address: write it as HOST:PORT
--pyroscope: url: "p:1" is no URL: write it as https://HOST:PORT`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// TestAllocsByThemselves: they are profiled where there is a server that shows them.
func TestAllocsByThemselves(t *testing.T) {
	for text, want := range map[string]bool{
		"":                    false,
		"parca: h:1":          true,
		"pyroscope: http://h": true,
		"otlp: {endpoint: 'h:1', experimental: true}":                  true,
		"otlp: {endpoint: 'h:1', experimental: true, profiles: false}": false,
		"parca: h:1\nallocs: {enabled: false}":                         false,
		"allocs: {enabled: true}":                                      true,
	} {
		c, err := Parse("f", []byte(text), nil)
		if err != nil || c.Allocs.Enabled != want {
			t.Errorf("%s: %v, %+v", text, err, c)
		}
	}
}

func TestWhatIsWrongWithServers(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"all at once": {`pyroscope:
  - url: ftp://x
    tls: {cart: x, ca: relative}
    basic_auth: text
    headers:
      Authorization: Bearer abc
      "a b": x
      x: "\n"
  - name: a b
    parallel: 0
  - {}
  - [x]
parca:
  address: nowhere
  timeout: 5
otlp: [{endpoint: "h:1"}, {endpoint: "h:2", experimental: true, profiles: false, metrics: false}, {endpoint: "h:3", experimental: true, protocol: udp}]
spool: {max_size: 1}
`, `f:2: pyroscope: url: "ftp://x" is no URL: write it as https://HOST:PORT
f:3: pyroscope: tls: unknown key "cart"; here may be: ca, cert, key, server_name, insecure_skip_verify
f:3: pyroscope: tls.ca: "relative" is no absolute path
f:4: pyroscope: basic_auth: a section is wanted: lines of KEY: VALUE
f:6: pyroscope: headers: Authorization: what is secret does not belong here: give a file, by bearer_token_file or another key
f:7: pyroscope: headers: a b: is no name of a header
f:8: pyroscope: headers: x: the value may have ASCII characters only
f:9: pyroscope: name: "a b" is no name: *
f:10: pyroscope: parallel: 0 is not within 1 and 256
f:11: pyroscope: url: the server's address is missing
f:12: pyroscope: a section is wanted: lines of KEY: VALUE
f:14: parca: address: "nowhere" is no address: write it as HOST:PORT
f:15: parca: timeout: "5" is no duration: *
f:16: otlp: endpoint: this signal still changes: say that you know by experimental: true
f:16: otlp: profiles: neither profiles nor metrics are wanted: remove the server
f:16: otlp: protocol: "udp" is none of grpc, http
f:17: spool.max_size: 1 is not within 1MiB and 1TiB`},
		"a password": {"pyroscope: https://a:secret@h", "f:1: pyroscope: url: a URL with a password is not for this file"},
		"contradictions": {`pyroscope:
  - {url: "http://h", basic_auth: {username: u}}
  - url: "https://h:2"
    basic_auth: {username: u, password_file: /p}
    bearer_token_file: /t
  - {url: "http://h:3", tls: {ca: /c}}
parca:
  - {address: "h:1", tls: {key: /k}}
`, `f:2: pyroscope: basic_auth.username: username and password_file need each other
f:5: pyroscope: bearer_token_file: basic_auth and bearer_token_file are both sent in the same header: remove one
f:6: pyroscope: tls.ca: an address that begins with http:// has no TLS: write https://
f:8: parca: tls.key: cert and key need each other`},
		"secrets in the open": {`pyroscope:
  - {url: "http://h:1", basic_auth: {username: u, password_file: /p}}
  - {url: "http://h:2", bearer_token_file: /t}
  - {url: "http://h:3", bearer_token_file: /t, insecure: true}
  - {url: "http://localhost:4", bearer_token_file: /t}
  - {url: "https://h:5", bearer_token_file: /t}
  - {url: "https://h:6", insecure: true}
parca: [{address: "http://h:1", bearer_token_file: /t}, {address: "h:2", bearer_token_file: /t}, {address: "h:3", bearer_token_file: /t, insecure: true}]
otlp:
  - {endpoint: "http://h:1", protocol: http, experimental: true, bearer_token_file: /t}
  - {endpoint: "http://[::1]:1", protocol: http, experimental: true, bearer_token_file: /t}
`, `f:2: pyroscope: basic_auth.password_file: it would go to another host without encryption: write https://, or insecure: true if it may
f:3: pyroscope: bearer_token_file: it would go to another host without encryption: *
f:7: pyroscope: insecure: an address that begins with https:// is not insecure: remove one of the two
f:8: parca: bearer_token_file: it would go to another host without encryption: *
f:10: otlp: bearer_token_file: it would go to another host without encryption: *`},
		"two of a name":      {"pyroscope: [http://h, https://h]", `f:1: pyroscope: there are two servers "pyroscope:h": give one of them another name`},
		"no place":           {"dir: {path: ''}\nlisten: ''\nparca: h:1", "f:1: dir.path: profiles that wait for servers have no place: give a directory"},
		"metrics go nowhere": {"dir: {path: ''}\nlisten: ''\notlp: {endpoint: 'h:1', experimental: true, profiles: false}", "f:1: dir.path: profiles would go nowhere: *"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", []byte(c.text), nil)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("%v", err)
			}
			got, want := strings.Split(err.Error(), "\n"), strings.Split(c.want, "\n")
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || !like(got[i], want[i]) {
					t.Fatalf("line %d, got\n%s\nwant\n%s", i+1, err, c.want)
				}
			}
		})
	}
}

// TestPrintedKeys: all keys of servers are explained, also where there is none; what is in secret files is not printed.
func TestPrintedKeys(t *testing.T) {
	secret := t.TempDir() + "/secret"
	if err := os.WriteFile(secret, []byte("hunter2hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "pyroscope: {url: 'https://h', basic_auth: {username: u, password_file: " + secret + "}}"} {
		c, err := Parse("f", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		p := printed(t, c)
		for _, list := range [][]field{new(Pyroscope).fields(), new(Parca).fields(), new(OTLP).fields()} {
			for _, f := range list {
				if !strings.Contains(p, "#   "+f.key+": "+f.doc+" ["+f.def+"]") {
					t.Errorf("%s is not explained in\n%s", f.key, p)
				}
			}
		}
		if strings.Contains(p, "hunter2") || text != "" && !strings.Contains(p, secret) {
			t.Errorf("a secret:\n%s", p)
		}
	}
}
