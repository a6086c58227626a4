package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pprofd/pprofd/export"
)

// Spool is where profiles wait for servers.
type Spool struct {
	Path    string // "": .spool in Dir.Path; see Config.SpoolPath
	MaxSize int64  // bytes
	MaxAge  time.Duration
}

// Pyroscope is a server of that kind.
type Pyroscope struct {
	Server
	Insecure     bool
	API          string // push, ingest
	Tenant       string
	BasicAuth    BasicAuth
	SampleLabels []string // "*": all
}

// Parca is a server of that kind.
type Parca struct {
	Server
	Insecure     bool
	SampleLabels []string
}

// OTLP is a server of that kind.
type OTLP struct {
	Server
	Insecure          bool
	Protocol          string // grpc, http
	Experimental      bool
	Profiles, Metrics bool
	Interval          time.Duration
}

// Server is what all kinds of servers have.
type Server struct {
	Name            string
	Address         string // URL or HOST:PORT, as its kind has it
	BearerTokenFile string
	TLS             TLS
	Headers         map[string]string
	Timeout         time.Duration
	Parallel        int
}

// BasicAuth is a name and a password.
type BasicAuth struct{ Username, PasswordFile string }

// TLS says whom to believe, and who the agent is.
type TLS struct {
	CA, Cert, Key, ServerName string
	InsecureSkipVerify        bool
}

// Servers says whether profiles go anywhere but to files.
func (c *Config) Servers() bool {
	return len(c.Pyroscope)+len(c.Parca) > 0 || slices.ContainsFunc(c.OTLP, func(o OTLP) bool { return o.Profiles })
}

// SpoolPath is the directory of the spool.
func (c *Config) SpoolPath() string {
	if c.Spool.Path != "" {
		return c.Spool.Path
	}
	return c.Dir.Path + "/.spool"
}

func (c *Config) serverFields() []field {
	return []field{
		{"pyroscope", "pyroscope", "[]", "Pyroscope servers", itemsValue(&c.Pyroscope, items[Pyroscope]{
			fields: (*Pyroscope).fields, check: (*Pyroscope).check,
		})},
		{"parca", "parca", "[]", "Parca servers; as a flag HOST:PORT is without TLS", itemsValue(&c.Parca, items[Parca]{
			fields: (*Parca).fields, check: (*Parca).check, flag: plain,
		})},
		{"otlp", "otlp", "[]", "servers that take OpenTelemetry's profiles and metrics; as a flag HOST:PORT is gRPC without TLS", itemsValue(&c.OTLP, items[OTLP]{
			fields: (*OTLP).fields, check: (*OTLP).check, flag: experimental,
		})},
	}
}

// plain is what a flag says that has HOST:PORT: servers have no TLS by themselves, and flags have no secrets.
func plain(address string) map[string]string {
	if strings.Contains(address, "://") {
		return nil
	}
	return map[string]string{"insecure": "true"}
}

// experimental: who gives the flag has read that.
func experimental(address string) map[string]string {
	more := map[string]string{"experimental": "true"}
	maps.Copy(more, plain(address))
	return more
}

func (s *Server) fields(kind, address, doc string, check func(string) error) []field {
	return []field{
		{address, "", `""`, doc, textValue(&s.Address, check)},
		{"name", "", `""`, `in metrics and in the log; "": ` + kind + `:HOST:PORT`, textValue(&s.Name, checkName)},
		{"bearer_token_file", "", `""`, "file with a token that is sent; it is read again when it changes", textValue(&s.BearerTokenFile, checkAbsolute)},
		{"tls.ca", "", `""`, `certificates that sign the server's; "": those of the system`, textValue(&s.TLS.CA, checkAbsolute)},
		{"tls.cert", "", `""`, "certificate of the agent", textValue(&s.TLS.Cert, checkAbsolute)},
		{"tls.key", "", `""`, "its private key", textValue(&s.TLS.Key, checkAbsolute)},
		{"tls.server_name", "", `""`, `the name in the server's certificate; "": that of its address`, textValue(&s.TLS.ServerName, nil)},
		{"tls.insecure_skip_verify", "", "false", "the certificate is not verified: whoever is in between sees all", boolValue(&s.TLS.InsecureSkipVerify)},
		{"headers", "", "{}", "sent with each profile; nothing secret", headersValue(&s.Headers)},
		{"timeout", "", "30s", "for one profile; 1s to 10m", durationValue(&s.Timeout, time.Second, 10*time.Minute)},
		{"parallel", "", "32", "profiles that are on their way at a time, at most; there is one as long as that is enough; 1 to 256", intValue(&s.Parallel, 256)},
	}
}

func (p *Pyroscope) fields() []field {
	return append(p.Server.fields("pyroscope", "url", "its address, as http://HOST:4040", checkURL), []field{
		{"insecure", "", "false", "http:// may carry the password or the token to another host, too", boolValue(&p.Insecure)},
		{"api", "", "push", "push, or ingest for servers before 1.0", choiceValue(&p.API, "push", "ingest")},
		{"tenant", "", `""`, "of a server that has several (X-Scope-OrgID)", textValue(&p.Tenant, nil)},
		{"basic_auth.username", "", `""`, "name that is sent with the password", textValue(&p.BasicAuth.Username, nil)},
		{"basic_auth.password_file", "", `""`, "file with the password; it is read again when it changes", textValue(&p.BasicAuth.PasswordFile, checkAbsolute)},
		{"sample_labels", "", `["*"]`, "names of goroutines' labels that are sent, each of their values as a series of its own; \"*\": all but those of too many values",
			listValue(&p.SampleLabels, checkSampleLabel)},
	}...)
}

const plainDoc = "without encryption, which an address on this host and http:// are anyway; then a token goes to another host, too"

func (p *Parca) fields() []field {
	return append(p.Server.fields("parca", "address", "HOST:7070", checkAddress), []field{
		{"insecure", "", "false", plainDoc, boolValue(&p.Insecure)},
		{"sample_labels", "", "[]", "names of goroutines' labels that are sent, each of their values as a series of its own",
			listValue(&p.SampleLabels, checkSampleLabel)},
	}...)
}

func (o *OTLP) fields() []field {
	return append(o.Server.fields("otlp", "endpoint", "HOST:4317, or http://HOST:4318 for protocol http", checkAddress), []field{
		{"insecure", "", "false", plainDoc, boolValue(&o.Insecure)},
		{"protocol", "", "grpc", "grpc or http", choiceValue(&o.Protocol, "grpc", "http")},
		{"experimental", "", "false", "has to be true: profiles in OTLP still change", boolValue(&o.Experimental)},
		{"profiles", "", "true", "true or false", boolValue(&o.Profiles)},
		{"metrics", "", "true", "the agent's own metrics; true or false", boolValue(&o.Metrics)},
		{"interval", "", "1m", "of metrics; 1s to 1h", durationValue(&o.Interval, time.Second, time.Hour)},
	}...)
}

// check finds what contradicts itself, and names the server.
func (s *Server) check(d *decoder, kind, address string, insecure bool) {
	if s.Address == "" {
		d.conflict("the server's address is missing", address)
		return
	}
	s.Name = cmp.Or(s.Name, kind+":"+host(s.Address))
	if (s.TLS.Cert == "") != (s.TLS.Key == "") {
		d.conflict("cert and key need each other", "tls.cert", "tls.key")
	}
	if strings.HasPrefix(s.Address, "http://") && s.TLS != (TLS{}) {
		d.conflict("an address that begins with http:// has no TLS: write https://", "tls.ca", "tls.cert", "tls.server_name", "tls.insecure_skip_verify")
	}
	if s.BearerTokenFile != "" && !insecure && exposed(s.Address) {
		d.conflict(inTheOpen, "bearer_token_file")
	}
}

const inTheOpen = "it would go to another host without encryption: write https://, or insecure: true if it may"

// exposed says whether everybody on the way can read what is sent to the address.
func exposed(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "http" && !export.Local(u.Hostname())
}

func (p *Pyroscope) check(d *decoder) {
	p.Server.check(d, "pyroscope", "url", p.Insecure)
	switch {
	case p.BasicAuth.PasswordFile != "" && !p.Insecure && exposed(p.Address):
		d.conflict(inTheOpen, "basic_auth.password_file")
	case p.Insecure && strings.HasPrefix(p.Address, "https://"):
		d.conflict("an address that begins with https:// is not insecure: remove one of the two", "insecure")
	case (p.BasicAuth.Username == "") != (p.BasicAuth.PasswordFile == ""):
		d.conflict("username and password_file need each other", "basic_auth.username", "basic_auth.password_file")
	case p.BasicAuth.Username != "" && p.BearerTokenFile != "":
		d.conflict("basic_auth and bearer_token_file are both sent in the same header: remove one", "bearer_token_file")
	}
}

func (p *Parca) check(d *decoder) { p.Server.check(d, "parca", "address", p.Insecure) }

func (o *OTLP) check(d *decoder) {
	o.Server.check(d, "otlp", "endpoint", o.Insecure)
	switch {
	case !o.Experimental:
		d.conflict("this signal still changes: say that you know by experimental: true", "experimental", "endpoint")
	case !o.Profiles && !o.Metrics:
		d.conflict("neither profiles nor metrics are wanted: remove the server", "profiles", "metrics")
	}
}

// host is the HOST:PORT of an address; of a URL without a port the host alone.
func host(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return address
}

// checkServers finds servers that cannot be told apart, by whose names the spool remembers what they have got.
func (c *Config) checkServers(d *decoder) {
	seen := map[string]bool{}
	one := func(key string, s *Server) {
		if seen[s.Name] {
			d.conflict(fmt.Sprintf("there are two servers %q: give one of them another name", s.Name), key)
		}
		seen[s.Name] = true
	}
	for i := range c.Pyroscope {
		one("pyroscope", &c.Pyroscope[i].Server)
	}
	for i := range c.Parca {
		one("parca", &c.Parca[i].Server)
	}
	for i := range c.OTLP {
		one("otlp", &c.OTLP[i].Server)
	}
	if c.Servers() && c.Spool.Path == "" && c.Dir.Path == "" {
		d.conflict("profiles that wait for servers have no place: give a directory", "spool.path", "dir.path")
	}
}

// items is how a list of sections is read.
type items[T any] struct {
	fields func(*T) []field
	check  func(*T, *decoder)
	flag   func(string) map[string]string // what else a flag says; may be nil
}

// itemsValue is a list of sections, or one of them; a word stands for a section that has only the first key.
func itemsValue[T any](p *[]T, how items[T]) value {
	return value{
		decode: func(n *yaml.Node, report report) {
			*p = nil
			list := []*yaml.Node{n}
			if n.Kind == yaml.SequenceNode {
				list = n.Content
			}
			for _, n := range list {
				var v T
				if how.decode(&v, n, report) {
					*p = append(*p, v)
				}
			}
		},
		encode: func() (*yaml.Node, error) {
			list := &yaml.Node{Kind: yaml.SequenceNode}
			if len(*p) == 0 {
				list.Style = yaml.FlowStyle
			}
			for i := range *p {
				n, err := tree(how.fields(&(*p)[i]), func(string) string { return "" })
				if err != nil {
					return nil, err
				}
				list.Content = append(list.Content, n)
			}
			return list, nil
		},
		list: true, more: how.flag,
		keys: how.fields(new(T)),
	}
}

func (how *items[T]) decode(v *T, n *yaml.Node, report report) bool {
	d := &decoder{fields: how.fields(v), lines: make(map[string]int), flags: make(map[string]string)}
	d.defaults()
	if n.Kind == yaml.ScalarNode {
		n = short(d.fields[0].key, n)
	}
	d.section("", n)
	if len(d.errs) == 0 {
		how.check(v, d)
	}
	for _, e := range d.errs {
		at := &yaml.Node{Line: cmp.Or(e.Line, n.Line)}
		if e.Key != "" {
			e.Msg = e.Key + ": " + e.Msg
		}
		report(at, "%s", e.Msg)
	}
	return len(d.errs) == 0
}

// short is the section that a word stands for.
func short(key string, word *yaml.Node) *yaml.Node {
	k := textNode(key)
	k.Line = word.Line
	return &yaml.Node{Kind: yaml.MappingNode, Line: word.Line, Content: []*yaml.Node{k, word}}
}

func headersValue(p *map[string]string) value { return mapValue(p, checkHeader) }

var (
	headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, token
	secretName = regexp.MustCompile(`(?i)authorization|cookie|token|secret|password|key`)
)

func checkHeader(name, text string) error {
	switch {
	case !headerName.MatchString(name):
		return errors.New("is no name of a header")
	case secretName.MatchString(name):
		return errors.New("what is secret does not belong here: give a file, by bearer_token_file or another key")
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("the value may have ASCII characters only")
	}
	return nil
}

func checkAddress(s string) error {
	if strings.Contains(s, "://") {
		return checkURL(s)
	}
	if h, port, err := net.SplitHostPort(s); err != nil || h == "" || port == "" {
		return fmt.Errorf("%q is no address: write it as HOST:PORT", s)
	}
	return nil
}

func checkName(s string) error {
	if len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%q is no name: up to 100 ASCII characters, without spaces", s)
	}
	return nil
}

func checkSampleLabel(s string) error {
	if s == "" {
		return errors.New("a label has a name")
	}
	return nil
}
