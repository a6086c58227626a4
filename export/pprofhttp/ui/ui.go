// Package ui is what people see of the agent in a browser: a page that lists processes and services, and for each of them the web
// UI of pprof: flame graph, graph, top, peek, and two profiles compared.
//
//	/                                    processes, services, and where their profiles are
//	/pid/4242/ui/                        profiles of a process that are kept, to look at and to compare
//	/pid/4242/ui/heap/flamegraph         takes a profile (?seconds=5), and leads to it:
//	/pid/4242/ui/heap@STAMP/flamegraph   a profile that is kept
//	/pid/4242/ui/heap@A~heap@B/top       one that is compared with another; ?base= leads there
//	/service/NAME/ui/...                 the same for all processes of a service together
//
// Names of processes, functions, files and labels are whatever somebody called them. They are text on these pages, which run no
// script but pprof's own, open nothing that a profile names, and load nothing from elsewhere. Who may ask is decided before a request
// comes here: profiles are confidential.
package ui

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/export/pprofhttp/ui/render"
)

// Options say what is shown.
type Options struct {
	Source  pprofhttp.Source
	Command []string // starts render.Child: render.Program
	Host    string   // name of this machine, for titles; may be ""
}

// UI has the handlers. It is safe for concurrent use.
type UI struct {
	o     Options
	draw  *render.Renderer
	kept  *shelf
	pages chan struct{} // one for each page of pprof's that is drawn or sent
	clock func() time.Time
}

// maxPages bounds the memory for pages that clients are slow to read.
const maxPages = 4

// New makes a UI.
func New(o Options) *UI {
	return &UI{o: o, draw: render.New(o.Command...), kept: newShelf(), pages: make(chan struct{}, maxPages), clock: time.Now}
}

// Register adds the handlers, by patterns of http.ServeMux.
func (u *UI) Register(handle func(pattern string, h http.Handler)) {
	handle("GET /{$}", http.HandlerFunc(u.index))
	for _, whose := range []string{"/pid/{pid}", "/service/{service}"} {
		handle("GET "+whose+"/ui/{$}", u.with(u.profiles))
		handle("GET "+whose+"/ui/compare", u.with(u.compare))
		handle("GET "+whose+"/ui/{what}/{$}", u.with(u.begin))
		handle("GET "+whose+"/ui/{what}/{view}", u.with(u.view))
	}
}

//go:embed page.html
var pageHTML string

//go:embed style.css
var style string

var pages = template.Must(template.New("page").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(style) }, "add": func(a, b int) int { return a + b },
}).Parse(pageHTML))

// Content security policies: no page loads anything from elsewhere. Ours have no scripts at all, those of pprof have their own,
// which are known by a nonce; its pictures set styles on elements.
var ownPolicy = "default-src 'none'; style-src 'sha256-" + hash(style) + "'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func drawnPolicy(nonce string) string {
	return "default-src 'none'; script-src 'nonce-" + nonce + "'; style-src 'unsafe-inline'; img-src data:; " +
		"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func newNonce() string { return rand.Text() }

// writeTime is how long a client may take to read a page.
const writeTime = 30 * time.Second

// show answers with a page of our own.
func (u *UI) show(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", ownPolicy)
	h.Set("Cache-Control", "no-store")
	send(w, status, page.Bytes())
}

// send writes a page to whoever may be slow.
func send(w http.ResponseWriter, status int, page []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime)) // connections of HTTP/1 have one
	w.WriteHeader(status)
	_, _ = w.Write(page) // the client has gone
}

// failure is a page that says why there is no other.
type failure struct {
	Title, Text string
	Of          *owner // nil: of nobody
	Again       string // path that may help; "": none
}

func (u *UI) fail(w http.ResponseWriter, of *owner, err error, again string) {
	status := http.StatusInternalServerError
	var known *pprofhttp.Error
	switch {
	case errors.As(err, &known):
		status = known.Status
		if known.After > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(known.After.Round(time.Second)/time.Second)+1))
		}
	case errors.Is(err, render.ErrBusy):
		status = http.StatusServiceUnavailable
	case errors.Is(err, render.ErrTooLarge):
		status = http.StatusInsufficientStorage
	case errors.Is(err, context.Canceled):
		return // there is nobody to tell
	}
	u.show(w, status, "failure", failure{http.StatusText(status), err.Error(), of, again})
}
