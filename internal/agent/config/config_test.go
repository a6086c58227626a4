package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/agent/web"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

func printed(t testing.TB, c *Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestNothingIsNeeded(t *testing.T) {
	for name, text := range map[string]string{"no file": "", "an empty one": "\n", "comments": "# nothing\n", "a document": "---\n"} {
		c, err := Parse("f", []byte(text), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.Window != 10*time.Second || c.CPU != (CPU{true, 19, 1, 0, true}) || c.Overhead != (Overhead{1, 100 << 20, 0.7}) || c.Heap != (Memory{true, time.Minute}) || c.Block != c.Heap || c.Mutex != c.Heap || c.Allocs.Enabled ||
			c.Dir != (Dir{"/var/lib/pprofd", 1 << 30, 7 * 24 * time.Hour, 1e6}) || c.Listen != "127.0.0.1:6061" || len(c.Select) != 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

const everything = `# all keys, none with its default
window: 15s
cpu: {enabled: false, hz: 99, min_hz: 5, max_hz: 199, kernel: false}
overhead: {cpu: 2.5%, memory: 64MiB, load: 0.9}
heap:
  enabled: true
  interval: 90s
allocs: {enabled: true, source: probe, interval: 30s, alloc_interval: 1MiB, budget: 2.5}
block: {enabled: false, interval: 20s}
mutex: {enabled: false, interval: 21s}
goroutine: {enabled: true, interval: 22s}
wall: {enabled: true, hz: 23}
dir: {path: /srv/p, max_size: 1.5GiB, max_age: 36h, max_files: 10}
spool: {path: /srv/s, max_size: 10MiB, max_age: 2h}
pyroscope:
  - url: https://p.example
    name: main
    api: ingest
    tenant: t
    basic_auth: {username: u, password_file: /p}
    tls: {ca: /ca, cert: /c, key: /k, server_name: s, insecure_skip_verify: true}
    headers: {X-Zone: a}
    timeout: 5s
    parallel: 2
    sample_labels: [endpoint]
  - http://q.example:4040
parca: {address: "parca:7070", bearer_token_file: /t, insecure: true, sample_labels: [a, b]}
otlp: [{endpoint: "http://o:4318", protocol: http, experimental: true, profiles: false, interval: 10s}]
listen: 0.0.0.0:443
auth:
  token_file: ""
  insecure_loopback: false
  hosts: [pprofd.example]
  tls: {cert: /c, key: /k, client_ca: /ca}
select:
  - exe=/srv/*
  - comm="a b"
exclude: [user=root]
relabel_configs:
  - source_labels: [exe, comm]
    regex: (.*)/bin;(.+)
    target_label: bin
    replacement: $1
  - {action: labeldrop, regex: vcs_.*}
  - {action: hashmod, source_labels: [pid], modulus: 7, target_label: shard}
  - {action: dropequal, source_labels: [pid], target_label: shard}
labels: {region: "1", zone: a}
kubernetes: {enabled: true, kubelet: "https://127.0.0.1:10250", api: "https://127.0.0.1:6443", node: n1, token_file: /t, ca_file: /c, insecure_kubelet: true}
containers: {sockets: []}
log: {level: debug, format: json}
max_targets: 7
`

func TestEveryKey(t *testing.T) {
	c, err := Parse("f", []byte(everything), nil)
	if err != nil {
		t.Fatal(err)
	}
	var def Config
	d := &decoder{fields: def.fields()}
	d.defaults()
	for i, f := range c.fields() {
		if switched := f.key == "heap.enabled" || f.key == "auth.token_file" || f.key == "auth.insecure_loopback"; switched {
			continue // what would contradict the others
		}
		n, err := f.value.encode()
		was, err2 := d.fields[i].value.encode()
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if cmp.Equal(n, was) {
			t.Errorf("%s was not set", f.key)
		}
	}
	if c.Select[1].String() != `comm="a b"` || c.Relabel[0].TargetLabel != "bin" || c.Relabel[1].Action != "labeldrop" || c.Dir.MaxSize != 3<<29 {
		t.Errorf("%+v", c)
	}
	want := web.Config{Listen: "0.0.0.0:443", DataDir: "/srv/p", TLS: web.TLS{Cert: "/c", Key: "/k", ClientCA: "/ca"}, Hosts: []string{"pprofd.example"}}
	if d := cmp.Diff(want, c.Web()); d != "" {
		t.Error(d)
	}
}

func TestPrintIsAFileThatSaysTheSame(t *testing.T) {
	for name, text := range map[string]string{"defaults": "", "everything": everything} {
		c, err := Parse("f", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		p := printed(t, c)
		again, err := Parse("printed", []byte(p), nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, p)
		}
		if d := cmp.Diff(p, printed(t, again)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		for _, f := range c.fields() {
			if !strings.Contains(p, "# "+f.doc+" ["+f.def+"]") {
				t.Errorf("%s: there is no comment of %s", name, f.key)
			}
		}
	}
}

// What is wrong is told all at once, with the lines.
func TestWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"all at once, in the order of lines": {`windo: 10s
cpu:
  hz: many
  hz: 5
  Kernel: true
heap: {interval: 1ms}
allocs: {source: guess, budget: -1}
dir:
  path:
  max_size: 12 parsecs
select: [exe=/srv/*, "=x", [a]]
exclude: user=root
labels: {0a: x, __b: y, c: [1]}
log: text
max_targets: 1e3
`, `f:1: unknown key "windo"; here may be: window, cpu, heap, allocs, block, mutex, goroutine, wall, overhead, dir, spool, pyroscope, parca, otlp, listen, auth, select, exclude, relabel_configs, labels, kubernetes, containers, log, max_targets
f:3: cpu.hz: "many" is no whole number
f:4: cpu: hz is there already, in line 3
f:5: cpu: unknown key "Kernel"; here may be: enabled, hz, min_hz, max_hz, kernel
f:6: heap.interval: 1ms is not within 1s and 24h
f:7: allocs.source: "guess" is none of read, probe, auto
f:7: allocs.budget: -1 is not within 0 and 100
f:9: dir.path: there is no value: remove the key, or write "" for an empty one
f:10: dir.max_size: "12 parsecs" is no size: write it in bytes, or as 512KiB, 100MiB or 1GiB
f:11: select: selection "=x", at "=x": *
f:11: select: one value is wanted, not a list or a section
f:12: exclude: a list is wanted: [a, b], or a line for each that begins with "- "
f:13: labels: 0a: names of labels have letters, digits and _, and do not begin with a digit
f:13: labels: __b: labels that begin with __ are for relabel_configs only
f:13: labels: c: one value is wanted, not a list or a section
f:14: log: a section is wanted: lines of KEY: VALUE
f:15: max_targets: "1e3" is no whole number`},
		"rules": {`relabel_configs:
  - source_label: [a]
  - {action: replace, regex: "("}
  - {action: hashmod, target_label: x}
  - keep
  - {action: jump}
`, `f:2: relabel_configs: unknown key "source_label"; a rule has source_labels, separator, regex, modulus, target_label, replacement, action
f:3: relabel_configs: *missing closing )*
f:4: relabel_configs: relabel configuration for hashmod requires non-zero modulus
f:5: relabel_configs: a section is wanted: lines of KEY: VALUE
f:6: relabel_configs: *unknown relabel action "jump"`},
		"no YAML":             {"cpu: {\nx", "f:*: not YAML: *"},
		"aliases":             {"labels: &a {x: y}\nselect: [*a]", "f:2: aliases (*a) are not supported: write it out"},
		"an alias of itself":  {"labels: &a {x: *a}", "f:1: aliases (*a) are not supported: write it out"},
		"two documents":       {"window: 10s\n---\nwindow: 20s", "f:2: there is a second document: one is wanted"},
		"a list":              {"- window", "f:1: a section is wanted: lines of KEY: VALUE"},
		"a dot in a key":      {"cpu.hz: 5", `f:1: unknown key "cpu.hz"; here may be: window, *`},
		"URL with a password": {"kubernetes: {kubelet: 'https://a:secret@h'}", "f:1: kubernetes.kubelet: a URL with a password is not for this file"},
		"sockets":             {"containers: {sockets: [a.sock]}\nauth: {hosts: ['http://x']}", "f:1: containers.sockets: container socket \"a.sock\": give an absolute path *\nf:2: auth.hosts: \"http://x\" is no name of a host"},
		"contradictions": {`cpu: {enabled: false}
heap: {enabled: false}
window: 1h
dir:
  path: ""
  max_age: 10m
allocs: {enabled: false}
block: {enabled: false}
mutex: {enabled: false}
auth: {insecure_loopback: true}
listen: 10.1.2.3:80
kubernetes: {enabled: false, kubelet: "http://h:1"}
`, `f:1: cpu.enabled: no kind of profile is enabled: enable cpu, heap, allocs, block, mutex, goroutine or wall
f:5: dir.path: profiles would go nowhere: give a directory, or a server
f:10: auth.insecure_loopback: listen "10.1.2.3:80": insecure_loopback is for loopback addresses only, *
f:12: kubernetes.kubelet: it is not asked, since kubernetes.enabled is false: remove one of them`},
		"nothing to ask":      {"kubernetes:\n  token_file: /t", "f:2: kubernetes.token_file: there is neither kubelet nor api to ask"},
		"no node":             {"kubernetes:\n  api: https://h:1", "f:2: kubernetes.api: *give the node's name"},
		"a token in clear":    {"kubernetes:\n  token_file: /t\n  kubelet: http://h:1", "f:2: kubernetes.token_file: *in clear*"},
		"too old":             {"window: 20m\ndir: {max_age: 20m}", "f:2: dir.max_age: profiles of 20m (window) are older than dir.max_age (20m) when *"},
		"listens to everyone": {"listen: :6061", `f:1: listen: listen ":6061": others can reach this address: give token_file (with *), or tls with *`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", []byte(c.text), nil)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("%v", err)
			}
			got, want := strings.Split(err.Error(), "\n"), strings.Split(c.want, "\n")
			if len(got) != len(want) {
				t.Fatalf("%d errors, want %d:\n%v", len(got), len(want), err)
			}
			for i := range got {
				if !like(got[i], want[i]) {
					t.Errorf("got  %s\nwant %s", got[i], want[i])
				}
			}
		})
	}
}

// like: a star in want stands for any text.
func like(got, want string) bool {
	parts := strings.Split(want, "*")
	if len(parts) == 1 || strings.Contains(want, "(*a)") {
		return got == want
	}
	for i, p := range parts {
		j := strings.Index(got, p)
		if j < 0 || i == 0 && j > 0 {
			return false
		}
		got = got[j+len(p):]
	}
	return got == "" || parts[len(parts)-1] == ""
}

func TestFlagsWin(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pprofd.yaml")
	if err := os.WriteFile(name, []byte("window: 20s\ncpu: {hz: 5}\nselect: [comm=a]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name, map[string][]string{"window": {"30s", "1m"}, "select": {"comm=b", "exe=/c,pid=7"}, "insecure-loopback": {"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Window != time.Minute || c.CPU.Hz != 5 || len(c.Select) != 2 || c.Select[1].String() != "exe=/c,pid=7" || !c.Auth.InsecureLoopback {
		t.Errorf("%+v", c)
	}
	_, err = Load(name, map[string][]string{"window": {"x"}, "select": {"=", "\xff"}, "other": nil, "": {"x"}})
	want := `--: there is no such flag
--other: there is no such flag
--select: "\xff" is not UTF-8
--window: "x" is no duration: write it as 10s, 5m or 168h`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if _, err = Load(name, map[string][]string{"listen": {"0.0.0.0:1"}}); err == nil || !strings.HasPrefix(err.Error(), "--listen: listen \"0.0.0.0:1\"") {
		t.Errorf("%v", err)
	}
	if _, err := Load(name+"x", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(name, bytes.Repeat([]byte("#"), maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name, nil); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v", err)
	}
}

func TestFlags(t *testing.T) {
	var names []string
	for _, f := range Flags() {
		names = append(names, f.Name)
		if f.Usage == "" || f.List != (f.Default == "") {
			t.Errorf("%+v", f)
		}
	}
	want := []string{"window", "cpu-hz", "max-overhead", "dir", "pyroscope", "parca", "otlp", "listen", "insecure-loopback", "select", "exclude", "log-level", "log-format"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}

func TestDurationsAndSizes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", time.Hour: "1h", 100 * time.Hour: "100h",
		time.Hour + time.Second: "1h0m1s", time.Millisecond: "1ms",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
	for s, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "1kB": 1000, "1KiB": 1024, "1.5MiB": 3 << 19, "2 GB": 2e9, "4TiB": 4 << 40, "9223372036854775807": 1<<63 - 1,
		"-1": -1, "1e400": -1, "NaN": -1, "": -1, "GiB": -1, "9000000TiB": -1, "1XB": -1,
	} {
		got, err := parseSize(s)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
		if again, err := parseSize(formatSize(got)); got >= 0 && (err != nil || again != got) {
			t.Errorf("%d is written %s, and read as %d, %v", got, formatSize(got), again, err)
		}
	}
}

// Whatever a file says: it is refused, or printed so that it says the same again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("labels: {a: \"\\u2028 # x\", b: 'null', c: 0x10, d: ~}\nselect: [\"a b\"]"))
	f.Add([]byte("relabel_configs: [{regex: null}, {<<: {action: drop}}]\n---\n"))
	f.Add([]byte("a: &x [*x]"))
	var b bytes.Buffer
	if c, err := Parse("", nil, nil); err != nil || c.Print(&b) != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text, nil)
		var errs Errors
		if err != nil {
			if !errors.As(err, &errs) || len(errs) == 0 {
				t.Fatalf("%v", err)
			}
			return
		}
		p := printed(t, c)
		again, err := Parse("p", []byte(p), nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, p)
		}
		if q := printed(t, again); p != q {
			t.Fatal(fmt.Sprint(cmp.Diff(p, q)))
		}
	})
}
