package pprofhttp

import (
	"fmt"
	"html/template"
	"io"
	"maps"
	"net/http"
	"slices"
)

// page is the index of what there is of one process, or of one service.
var page = template.Must(template.New("index").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{.Title}}: /debug/pprof/</title>
</head>
<body>
<h1>{{.Title}}</h1>
<ul>
{{range .Processes}}<li>{{.Service}}, process {{.PID}} ({{.Comm}})</li>
{{end}}</ul>
<p>Profiles of it, for go tool pprof. debug=1 gives text, but for profile and wall.</p>
<table>
{{range .Kinds}}<tr><td>{{if .Lacks}}{{.Name}}{{else}}<a href="{{.Name}}{{.Query}}">{{.Name}}</a>{{end}}</td><td>{{.About}}{{with .Lacks}} (not here: {{.}}){{end}}</td></tr>
{{end}}</table>
</body>
</html>
`))

type pageKind struct{ Name, Query, About, Lacks string }

// index lists the kinds.
func (h *Handlers) index(w http.ResponseWriter, _ *http.Request, q Request) error {
	var members []Process
	for _, p := range h.source.Processes() {
		if p.PID == q.PID || q.PID == 0 && p.Service == q.Service {
			members = append(members, p)
		}
	}
	title := "service " + q.Service
	switch {
	case len(members) == 0 && q.PID == 0:
		return NoService(q.Service)
	case q.PID > 0:
		if _, err := h.inspector.Cmdline(q.PID); err != nil { // it knows why there is none
			return err
		}
		title = fmt.Sprintf("process %d", q.PID)
	}
	var list []pageKind
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		k := kinds[name]
		one := pageKind{Name: name, About: k.about, Lacks: k.lacks}
		if textOf(name) != nil {
			one.Query = "?debug=1"
		}
		list = append(list, one)
	}
	return h.answer(w, func(out io.Writer) error {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		return page.Execute(out, map[string]any{"Title": title, "Processes": members, "Kinds": list})
	})
}
