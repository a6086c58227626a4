package render

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/google/pprof/driver"
	"github.com/google/pprof/profile"
)

// Names that the driver knows the profiles by.
const (
	profileName = "profile"
	baseName    = "base"
)

// draw has the driver draw a page.
func draw(o Order) (*Page, error) {
	profiles := profiles{}
	for name, data := range map[string][]byte{profileName: o.Profile, baseName: o.Base} {
		if len(data) == 0 {
			continue
		}
		p, err := profile.ParseData(data)
		if err != nil {
			return nil, err
		}
		disarm(p)
		if o.View == Graph {
			unquote(p)
		}
		profiles[name] = p
	}
	req, err := http.NewRequest(http.MethodGet, "http://pprof/"+o.View, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = passed(o.Query)
	a := &answer{header: http.Header{}}
	err = driver.PProf(&driver.Options{
		Fetch: profiles, Flagset: flags{compare: len(o.Base) > 0}, UI: silent{}, Sym: noSymbols{}, Obj: noObjects{}, Writer: noFiles{},
		HTTPTransport: noNetwork{},
		HTTPServer: func(args *driver.HTTPServerArgs) error {
			h := args.Handlers["/"+o.View]
			if h == nil {
				return fmt.Errorf("this version of pprof has no view %q", o.View)
			}
			h.ServeHTTP(a, req)
			return nil
		},
	})
	switch {
	case err != nil && a.code == 0: // two profiles that cannot be compared, mostly
		return &Page{Status: http.StatusBadRequest, Type: "text/plain; charset=utf-8", Body: []byte(err.Error() + "\n")}, nil
	case err != nil:
		return nil, err
	}
	return a.page(o)
}

// disarm takes out of a profile what the driver would look for: the names of files, which it shows without directories anyway,
// build IDs, which it takes for parts of paths, and the address of a documentation.
func disarm(p *profile.Profile) {
	for _, m := range p.Mapping {
		m.BuildID = ""
		if m.File != "" {
			m.File = path.Base(m.File)
		}
	}
	p.DocURL = ""
}

// plain has look-alikes of what ends a string, or means something in it, in the language of dot.
var plain = strings.NewReplacer(`"`, "\u2033", `\`, "\u29f5", "&", "\uff06", "\n", " ", "\r", " ")

// unquote takes quotes and backslashes out of all that p says. The driver writes some of it into the input of dot as it is (labels,
// units, names of files: internal/graph/dotgraph.go as of October 2026), where it could set attributes, such as image, which has dot
// open a file. dot would also take names for characters in HTML's way (&lt;).
func unquote(p *profile.Profile) {
	texts := []*string{&p.DefaultSampleType}
	for _, f := range p.Function {
		texts = append(texts, &f.Name, &f.SystemName, &f.Filename)
	}
	for _, m := range p.Mapping {
		texts = append(texts, &m.File, &m.KernelRelocationSymbol)
	}
	for _, t := range append(p.SampleType, p.PeriodType) {
		if t != nil {
			texts = append(texts, &t.Type, &t.Unit)
		}
	}
	for i := range p.Comments {
		texts = append(texts, &p.Comments[i])
	}
	for _, t := range texts {
		*t = plain.Replace(*t)
	}
	for _, s := range p.Sample {
		s.Label, s.NumUnit = unquoted(s.Label), unquoted(s.NumUnit)
		numbers := make(map[string][]int64, len(s.NumLabel))
		for k, v := range s.NumLabel {
			numbers[plain.Replace(k)] = v
		}
		s.NumLabel = numbers
	}
}

func unquoted(labels map[string][]string) map[string][]string {
	out := make(map[string][]string, len(labels))
	for k, list := range labels {
		k = plain.Replace(k)
		for _, v := range list {
			out[k] = append(out[k], plain.Replace(v))
		}
	}
	return out
}

// passed is what of a query the driver is given: units go to dot as they are, too.
func passed(query string) string {
	q, err := url.ParseQuery(query)
	if err != nil {
		return ""
	}
	if strings.ContainsFunc(q.Get("unit"), func(r rune) bool { return r < 'a' || r > 'z' }) {
		q.Del("unit")
	}
	return q.Encode()
}

// answer is what the driver writes to.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// noRows is the table of a profile, or of what a filter leaves of one, that has no rows: its script would stop at null.
var noRows = regexp.MustCompile(`(makeTopTable\([^,()]*),\s*null\s*\)`)

// page completes the HTML of the driver. It has no script but those of its own templates: else it is not shown.
func (a *answer) page(o Order) (*Page, error) {
	p := &Page{Status: a.code, Type: a.header.Get("Content-Type"), Body: a.body.Bytes()}
	if p.Status != http.StatusOK || o.View == Download {
		return p, nil
	}
	const script = "<script>"
	if n := bytes.Count(p.Body, []byte(script)); n != scripts[o.View] {
		return nil, fmt.Errorf("a page with %d scripts, in place of %d, is not shown", n, scripts[o.View])
	}
	p.Body = noRows.ReplaceAll(p.Body, []byte("$1, [])"))
	p.Body = bytes.ReplaceAll(p.Body, []byte(script), []byte(`<script nonce="`+o.Nonce+`">`))
	p.Body = bytes.Replace(p.Body, []byte("</head>"), []byte(o.Head+"</head>"), 1)
	p.Body = bytes.Replace(p.Body, []byte("<body>"), []byte("<body>"+o.Body), 1)
	p.Type = "text/html; charset=utf-8"
	return p, nil
}

// profiles are what the driver fetches.
type profiles map[string]*profile.Profile

func (p profiles) Fetch(name string, _, _ time.Duration) (*profile.Profile, string, error) {
	found := p[name]
	if found == nil {
		return nil, "", fmt.Errorf("there is no profile %q", name)
	}
	return found, "", nil
}

// flags are the command line: -http localhost:0 -no_browser -symbolize none [-diff_base base] profile. Of what belongs to the
// configuration, which is the process's, there is nothing: all comes with the request.
type flags struct{ compare bool }

func (flags) Bool(name string, def bool, _ string) *bool {
	v := def || name == "no_browser"
	return &v
}

func (flags) Int(_ string, def int, _ string) *int { return &def }

func (flags) Float64(_ string, def float64, _ string) *float64 { return &def }

func (flags) String(name, def, _ string) *string {
	switch name {
	case "http":
		def = "localhost:0" // nobody listens there: see HTTPServer
	case "symbolize":
		def = "none"
	case "tools":
		def = ""
	}
	return &def
}

func (f flags) StringList(name, _, _ string) *[]*string {
	list := []*string{}
	if name == "diff_base" && f.compare {
		base := baseName
		list = append(list, &base)
	}
	return &list
}

func (flags) ExtraUsage() string   { return "" }
func (flags) AddExtraUsage(string) {}
func (flags) Parse(func()) []string {
	return []string{profileName}
}

var errNone = errors.New("pages are drawn from the profile alone")

// silent is a user who is not there. What is wrong with a request stands on the page.
type silent struct{}

func (silent) ReadLine(string) (string, error)     { return "", io.EOF }
func (silent) Print(...any)                        {}
func (silent) PrintErr(...any)                     {}
func (silent) IsTerminal() bool                    { return false }
func (silent) WantBrowser() bool                   { return false }
func (silent) SetAutoComplete(func(string) string) {}

type noSymbols struct{}

func (noSymbols) Symbolize(string, driver.MappingSources, *profile.Profile) error { return nil }

// noObjects has no executables, whatever their names.
type noObjects struct{}

func (noObjects) Open(string, uint64, uint64, uint64, string) (driver.ObjFile, error) {
	return nil, errNone
}

func (noObjects) Disasm(string, uint64, uint64, bool) ([]driver.Inst, error) { return nil, errNone }

type noFiles struct{}

func (noFiles) Open(string) (io.WriteCloser, error) { return nil, errNone }

type noNetwork struct{}

func (noNetwork) RoundTrip(*http.Request) (*http.Response, error) { return nil, errNone }
