package ui

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/export/pprofhttp/ui/render"
)

// kinds of profiles that are shown, in their order.
var kinds = []string{
	pprofhttp.KindProfile, pprofhttp.KindWall, pprofhttp.KindHeap, pprofhttp.KindAllocs, pprofhttp.KindGoroutine, pprofhttp.KindBlock, pprofhttp.KindMutex,
}

var titles = map[string]string{
	pprofhttp.KindProfile: "CPU time", pprofhttp.KindWall: "wall-clock time", pprofhttp.KindHeap: "memory in use", pprofhttp.KindAllocs: "allocations",
	pprofhttp.KindGoroutine: "goroutines", pprofhttp.KindBlock: "waiting", pprofhttp.KindMutex: "contended mutexes",
}

// nothing says of kinds why a profile may have no samples.
var nothing = map[string]string{
	pprofhttp.KindProfile: "the process did not run in that time", pprofhttp.KindWall: "no goroutine was seen to run or wait",
	pprofhttp.KindHeap:      "the runtime samples one allocation for some 512 KiB: a small heap may have none",
	pprofhttp.KindAllocs:    "the runtime samples one allocation for some 512 KiB",
	pprofhttp.KindGoroutine: "it has no goroutines to show", pprofhttp.KindBlock: "nobody was seen to wait", pprofhttp.KindMutex: "nobody was seen to wait for a mutex",
}

const (
	defaultSeconds = 10 // of what is sampled
	maxSeconds     = 300
	maxQuery       = 4 << 10 // bytes
)

// viewLink is a view that pages link to.
type viewLink struct{ View, Title string }

func views() []viewLink {
	list := []viewLink{{render.Flamegraph, "flame graph"}, {render.Graph, "graph"}, {render.Top, "top"}, {render.Peek, "peek"}, {render.Download, "download"}}
	if _, err := render.Dot(); err != nil {
		list = slices.DeleteFunc(list, func(v viewLink) bool { return v.View == render.Graph })
	}
	return list
}

// profilesPage lists what is kept of a process or service.
type profilesPage struct {
	Host  string
	Of    *owner
	Kinds []string
	Kept  []keptRow
	Base  int // which of them the newest is compared with, if nothing else is chosen
	Views []viewLink
	NoDot string // why there are no graphs
	Keep  int    // minutes
}

type keptRow struct {
	Name, What, At string
	KiB            int
	Earlier        bool // of an earlier process of that PID
}

func (u *UI) profiles(w http.ResponseWriter, _ *http.Request, of *owner) {
	p := profilesPage{Host: u.o.Host, Of: of, Kinds: kinds, Views: views(), Keep: int(keepTime / time.Minute)}
	if _, err := render.Dot(); err != nil {
		p.NoDot = err.Error()
	}
	for i, s := range u.kept.list(of.Path(), u.clock()) {
		if i > 0 && p.Base == 0 && p.Kept[0].What == s.what() {
			p.Base = i
		}
		p.Kept = append(p.Kept, keptRow{s.name(), s.what(), s.taken.Format(time.TimeOnly), (len(s.data) + 1023) / 1024, s.of.Start != of.Start})
	}
	u.show(w, http.StatusOK, "profiles", p)
}

// what says what is in it.
func (s *shot) what() string {
	if s.seconds > 0 {
		return fmt.Sprintf("%s of %d s", titles[s.kind], s.seconds)
	}
	return titles[s.kind]
}

// compare is where the form leads that has two profiles chosen.
func (u *UI) compare(w http.ResponseWriter, r *http.Request, of *owner) {
	what, err := parseSelection(r.FormValue("of") + "~" + r.FormValue("base"))
	if err != nil {
		u.fail(w, of, err, "")
		return
	}
	redirect(w, of.UI()+what.String()+"/"+render.Flamegraph)
}

func (u *UI) begin(w http.ResponseWriter, r *http.Request, of *owner) {
	redirect(w, withQuery(of.UI()+url.PathEscape(r.PathValue("what"))+"/"+render.Flamegraph, r.URL.Query()))
}

// redirect leads to a path of this server.
func redirect(w http.ResponseWriter, path string) {
	w.Header().Set("Location", path)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
}

func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// view shows a profile that is kept, or takes it and leads there.
func (u *UI) view(w http.ResponseWriter, r *http.Request, of *owner) {
	view, q := r.PathValue("view"), r.URL.Query()
	if !render.Known(view) {
		u.fail(w, of, pprofhttp.NotFound("there is no view %q here: pprof's source and disasm would open files that the profile names, and nobody's settings are kept", view), "")
		return
	}
	text := r.PathValue("what")
	if base := q.Get("base"); base != "" && !strings.Contains(text, "~") {
		text += "~" + base
	}
	what, err := parseSelection(text)
	if err != nil {
		u.fail(w, of, err, "")
		return
	}
	if what.of.stamp != "" && (what.base.kind == "" || what.base.stamp != "") && !q.Has("base") {
		u.pinned(w, r, of, what)
		return
	}
	if err := u.take(r, of, &what); err != nil {
		u.fail(w, of, err, of.UI())
		return
	}
	q.Del("base")
	q.Del("seconds")
	redirect(w, withQuery(of.UI()+what.String()+"/"+view, q))
}

// take takes what has not been taken: what to compare with first.
func (u *UI) take(r *http.Request, of *owner, what *selection) error {
	for _, p := range []*part{&what.base, &what.of} {
		if p.kind == "" || p.stamp != "" {
			continue
		}
		seconds, err := secondsOf(r.FormValue("seconds"), p.kind)
		if err != nil {
			return err
		}
		s, err := u.shoot(r, of, p.kind, seconds)
		if err != nil {
			return err
		}
		p.stamp = s.stamp
	}
	return nil
}

func secondsOf(text, kind string) (int, error) {
	if text == "" && (kind == pprofhttp.KindProfile || kind == pprofhttp.KindWall) {
		return defaultSeconds, nil
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxSeconds {
		return 0, &pprofhttp.Error{Status: http.StatusBadRequest, Err: fmt.Errorf("seconds=%q: give a number from 1 to %d", text, maxSeconds)}
	}
	return n, nil
}

// shoot takes a profile and keeps it.
func (u *UI) shoot(r *http.Request, of *owner, kind string, seconds int) (*shot, error) {
	want := pprofhttp.Request{PID: of.PID, Kind: kind, Duration: time.Duration(seconds) * time.Second}
	if of.PID == 0 {
		want.Service = of.Service
	}
	p, err := u.o.Source.Profile(r.Context(), want)
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	if err := p.Write(&data); err != nil {
		return nil, fmt.Errorf("encode the profile: %w", err)
	}
	if data.Len() > keepBytes/4 {
		return nil, &pprofhttp.Error{Status: http.StatusInsufficientStorage, Err: fmt.Errorf(
			"the profile has %d MiB, and is not kept: take it with go tool pprof from %s/debug/pprof/%s", data.Len()>>20, of.Path(), kind)}
	}
	s := &shot{of: *of, kind: kind, seconds: seconds, data: bytes.Clone(data.Bytes()), empty: len(p.Sample) == 0}
	if s.empty {
		s.comments = p.Comments
	}
	u.kept.add(s, u.clock())
	return s, nil
}

// pinned shows a profile, compared or not, that is kept.
func (u *UI) pinned(w http.ResponseWriter, r *http.Request, of *owner, what selection) {
	now := u.clock()
	s, base := u.kept.get(of.Path(), what.of.String(), now), (*shot)(nil)
	if what.base.kind != "" {
		base = u.kept.get(of.Path(), what.base.String(), now)
	}
	if s == nil || what.base.kind != "" && base == nil {
		u.fail(w, of, &pprofhttp.Error{Status: http.StatusGone, Err: fmt.Errorf("this profile is not kept any more: "+
			"profiles that nobody has looked at for %d minutes are forgotten", keepTime/time.Minute)}, of.UI()+what.of.kind+"/"+r.PathValue("view"))
		return
	}
	view := r.PathValue("view")
	if view == render.Download && base == nil {
		h := w.Header()
		h.Set("Content-Type", "application/vnd.google.protobuf+gzip")
		h.Set("Content-Disposition", `attachment; filename="`+s.file()+`"`)
		send(w, http.StatusOK, s.data)
		return
	}
	if s.empty && (base == nil || base.empty) {
		u.show(w, http.StatusOK, "empty", barData{of, s, base})
		return
	}
	if _, err := render.Dot(); view == render.Graph && err != nil {
		u.fail(w, of, &pprofhttp.Error{Status: http.StatusNotImplemented, Err: err}, of.UI()+what.String()+"/"+render.Flamegraph)
		return
	}
	u.drawn(w, r, s, base)
}

// file is what the profile is called when it is saved.
func (s *shot) file() string {
	whose := "service"
	if s.of.PID > 0 {
		whose = strconv.Itoa(s.of.PID)
	}
	return s.kind + "-" + whose + "-" + s.stamp + ".pb.gz"
}

// drawn answers with a page of pprof's.
func (u *UI) drawn(w http.ResponseWriter, r *http.Request, s, base *shot) {
	if len(r.URL.RawQuery) > maxQuery {
		u.fail(w, &s.of, &pprofhttp.Error{Status: http.StatusRequestURITooLong, Err: errors.New("the query is too long")}, "")
		return
	}
	select {
	case u.pages <- struct{}{}:
		defer func() { <-u.pages }()
	case <-r.Context().Done():
		return
	case <-time.After(writeTime):
		u.fail(w, &s.of, render.ErrBusy, r.URL.EscapedPath())
		return
	}
	nonce := newNonce()
	o := render.Order{View: r.PathValue("view"), Query: r.URL.RawQuery, Nonce: nonce, Profile: s.data}
	bar := barData{Of: &s.of, Shot: s, Base: base}
	if base != nil {
		o.Base = base.data
	}
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, "bar", bar); err != nil {
		u.fail(w, &s.of, err, "")
		return
	}
	o.Head, o.Body = headOf(views()), body.String()
	page, err := u.draw.Draw(r.Context(), o)
	if err != nil {
		u.fail(w, &s.of, err, "")
		return
	}
	if page.Status >= http.StatusBadRequest {
		text := strings.ToValidUTF8(strings.TrimSpace(string(page.Body)), "\uFFFD")
		u.fail(w, &s.of, &pprofhttp.Error{Status: page.Status, Err: errors.New(text)}, r.URL.EscapedPath())
		return
	}
	h := w.Header()
	h.Set("Content-Type", page.Type)
	h.Set("Content-Security-Policy", drawnPolicy(nonce))
	h.Set("Cache-Control", "no-store")
	if o.View == render.Download {
		h.Set("Content-Disposition", `attachment; filename="`+s.file()+`"`)
	}
	send(w, page.Status, page.Body)
}

// barData is what the line above a page of pprof's says.
type barData struct {
	Of         *owner
	Shot, Base *shot
}

// What says what is shown.
func (b barData) What() string {
	text := b.Shot.what() + ", " + b.Shot.taken.Format(time.TimeOnly)
	if b.Base != nil {
		text += ", less " + b.Base.what() + ", " + b.Base.taken.Format(time.TimeOnly)
	}
	return text + " UTC"
}

// Why says why there may be no samples.
func (b barData) Why() string { return nothing[b.Shot.kind] }

// Comments are those of a profile without samples.
func (b barData) Comments() []string { return b.Shot.comments }

// Again is where a new one is taken.
func (b barData) Again() string {
	path := b.Of.UI() + b.Shot.kind + "/" + render.Flamegraph
	if b.Shot.seconds > 0 {
		path += "?seconds=" + strconv.Itoa(b.Shot.seconds)
	}
	return path
}

// headOf hides what pprof's menus have that is not here.
func headOf(there []viewLink) string {
	hidden := "#list, #disasm, #config, #action-source, #action-source-tab, #action-source-tab + hr"
	if !slices.ContainsFunc(there, func(v viewLink) bool { return v.View == render.Graph }) {
		hidden += ", #graphbtn"
	}
	return `<link rel="icon" href="data:,"><style>` + hidden + ` { display: none !important }` + barStyle + `</style>`
}

const barStyle = `
#pprofd { flex: none; padding: 4px 10px; font: 13px/1.5 sans-serif; background: #24313f; color: #fff }
#pprofd a { color: #9fd0ff }`
