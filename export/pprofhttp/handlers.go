package pprofhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// Inspector says of processes what needs no profile. It is safe for concurrent use; errors are those of Source.Profile.
type Inspector interface {
	// Cmdline is the command line of a process.
	Cmdline(pid int) ([]string, error)
	// Names are those of the functions that a process has at its own addresses, "" where there is none.
	Names(ctx context.Context, pid int, pcs []uint64) ([]string, error)
}

// Handlers answer requests.
type Handlers struct {
	source    Source
	inspector Inspector
	unread    unread
	readTime  time.Duration // in which a client has to read readStep
}

// New returns handlers for the processes of s; i knows the same ones.
func New(s Source, i Inspector) *Handlers {
	return &Handlers{source: s, inspector: i, readTime: readTime}
}

// Register hands over all handlers, by patterns of http.ServeMux.
func (h *Handlers) Register(handle func(pattern string, h http.Handler)) {
	for _, prefix := range []string{"/pid/{pid}", "/service/{service}"} {
		handle("GET "+prefix+"/debug/fgprof", h.with(h.fgprof))
		prefix += "/debug/pprof"
		handle("GET "+prefix, http.HandlerFunc(slash))
		handle("GET "+prefix+"/{$}", h.with(h.index))
		handle("GET "+prefix+"/{kind}", h.with(h.kind))
		handle("POST "+prefix+"/symbol", h.with(h.symbol))
	}
	handle("GET /targets", http.HandlerFunc(h.targets))
}

// slash leads to the index, whose links are relative.
func slash(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "pprof/", http.StatusMovedPermanently)
}

const (
	octets = "application/octet-stream"
	plain  = "text/plain; charset=utf-8"
)

// with answers with the error that f returns, if any, as net/http/pprof does.
func (*Handlers) with(f func(http.ResponseWriter, *http.Request, Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := wanted(r)
		if err == nil {
			err = f(w, r, q)
		}
		if err != nil {
			refuse(w, err)
		}
	})
}

// wanted reads of whom something is wanted.
func wanted(r *http.Request) (q Request, err error) {
	if q.Service = r.PathValue("service"); q.Service != "" {
		return q, nil
	}
	text := r.PathValue("pid")
	if q.PID, err = strconv.Atoi(text); err != nil || q.PID <= 0 {
		return q, bad("%q is no PID: give a number, as in /pid/4242/debug/pprof/", text)
	}
	return q, nil
}

func bad(format string, args ...any) error {
	return &Error{Status: http.StatusBadRequest, Err: fmt.Errorf(format, args...)}
}

// refuse answers that something did not work.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if e := (*Error)(nil); errors.As(err, &e) {
		status = cmp.Or(e.Status, status)
		if e.After > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.After.Seconds()))))
		}
	}
	h := w.Header()
	h.Set("Content-Type", plain)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Go-Pprof", "1") // by which pprof knows that the text is for its user
	h.Del("Content-Disposition")
	w.WriteHeader(status)
	fmt.Fprintln(w, legible(err.Error()))
}

// kind answers for what is behind the prefix.
func (h *Handlers) kind(w http.ResponseWriter, r *http.Request, q Request) error {
	q.Kind = r.PathValue("kind")
	k, ok := kinds[q.Kind]
	switch {
	case !ok:
		return NotFound("there is no kind of profile %q: %s", q.Kind, "see the list at ./")
	case k.lacks != "":
		return &Error{Status: http.StatusNotImplemented, Err: fmt.Errorf("%s: %s", q.Kind, k.lacks)}
	}
	return k.answer(h, w, r, q)
}

// fgprof is wall at the path, and with the parameters, of github.com/felixge/fgprof, for which there are scrapers.
func (h *Handlers) fgprof(w http.ResponseWriter, r *http.Request, q Request) error {
	if f := r.URL.Query().Get("format"); f != "" && f != "pprof" {
		return bad("format %q is not here: pprof is", f)
	}
	q.Kind = KindWall
	return h.cpu(w, r, q)
}

// parameters are what a URL says behind the question mark.
type parameters struct {
	seconds   time.Duration // 0: not said
	debug, gc int
}

// maxSeconds is a day.
const maxSeconds = 24 * 60 * 60

func parse(query url.Values) (p parameters, err error) {
	if text := query.Get("seconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 || n > maxSeconds {
			return p, bad(`invalid value for "seconds": %q: it must be a positive integer, and at most %d`, text, maxSeconds)
		}
		p.seconds = time.Duration(n) * time.Second
	}
	for name, value := range map[string]*int{"debug": &p.debug, "gc": &p.gc} {
		text := query.Get(name)
		if text == "" {
			continue
		}
		if *value, err = strconv.Atoi(text); err != nil || *value < 0 {
			return p, bad(`invalid value for %q: %q: it must be a number, from 0 on`, name, text)
		}
	}
	return p, nil
}

// cpu takes a profile of CPU time, or of wall. debug has no meaning for it, as in net/http/pprof.
func (h *Handlers) cpu(w http.ResponseWriter, r *http.Request, q Request) error {
	p, err := parse(r.URL.Query())
	if err != nil {
		return err
	}
	q.Duration = p.seconds
	taken, err := h.source.Profile(r.Context(), q)
	if err != nil {
		return err
	}
	return h.send(w, taken, q.Kind)
}

// noteGC is what happens to gc=1.
const noteGC = "gc is ignored: a process cannot be made to collect garbage from outside; this is as of its last garbage collection but one"

// records takes a profile of what runtimes keep of themselves.
func (h *Handlers) records(w http.ResponseWriter, r *http.Request, q Request) error {
	p, err := parse(r.URL.Query())
	switch {
	case err != nil:
		return err
	case p.seconds > 0 && p.debug > 0:
		return bad("seconds and debug params are incompatible")
	case p.debug > 1 && q.Kind == KindGoroutine:
		return &Error{Status: http.StatusNotImplemented, Err: errors.New(noDump)}
	}
	q.Duration, q.Runtime = p.seconds, p.debug > 0 && q.PID > 0
	taken, err := h.source.Profile(r.Context(), q)
	if err != nil {
		return err
	}
	if p.gc > 0 && (q.Kind == KindHeap || q.Kind == KindAllocs) {
		w.Header().Set("X-Pprofd-Note", noteGC)
		taken.Comments = append(taken.Comments, noteGC)
	}
	switch {
	case p.debug > 0:
		w.Header().Set("Content-Type", plain)
		return h.answer(w, func(out io.Writer) error { return textOf(q.Kind)(out, taken) })
	case p.seconds > 0:
		return h.send(w, taken, q.Kind+"-delta")
	}
	return h.send(w, taken, q.Kind)
}

// noDump is why there is no goroutine?debug=2.
const noDump = "goroutine: the traces of all goroutines, as debug=2, are not here: pprofd dump -p PID prints them on the machine where the process runs; debug=1 and pprof's format are here"

// send answers with a profile.
func (h *Handlers) send(w http.ResponseWriter, p *profile.Profile, name string) error {
	head := w.Header()
	head.Set("Content-Type", octets)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s"`, name))
	return h.answer(w, p.Write)
}

// cmdline answers with command lines: the arguments with NUL bytes between them, one process in a line.
func (h *Handlers) cmdline(w http.ResponseWriter, _ *http.Request, q Request) error {
	pids := []int{q.PID}
	if q.PID == 0 {
		if pids = h.members(q.Service); len(pids) == 0 {
			return NoService(q.Service)
		}
	}
	var lines []string
	var last error
	for _, pid := range pids {
		args, err := h.inspector.Cmdline(pid)
		if err != nil {
			last = err
			continue
		}
		lines = append(lines, strings.Join(args, "\x00"))
	}
	if len(lines) == 0 {
		return last
	}
	return h.text(w, strings.Join(lines, "\n"))
}

// members are the processes of a service.
func (h *Handlers) members(service string) (pids []int) {
	for _, p := range h.source.Processes() {
		if p.Service == service {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// NoService is the error of who asks for a service that has no processes.
func NoService(name string) error {
	return NotFound("no process of a service %q is profiled now: /targets lists all processes and the names of their services", name)
}

// symbol names functions, in the form that net/http/pprof has.
func (h *Handlers) symbol(w http.ResponseWriter, r *http.Request, q Request) error {
	if q.PID == 0 {
		return &Error{Status: http.StatusNotImplemented,
			Err: errors.New("symbol: the processes of a service need not have a function at the same address: ask for one of them, by /pid/PID/debug/pprof/symbol")}
	}
	text := r.URL.RawQuery
	if r.Method == http.MethodPost {
		var err error
		if text, err = body(w, r); err != nil {
			return err
		}
	}
	var pcs []uint64
	for word := range strings.SplitSeq(text, "+") {
		if pc, err := strconv.ParseUint(word, 0, 64); err == nil && pc != 0 {
			pcs = append(pcs, pc)
		}
	}
	names, err := h.inspector.Names(r.Context(), q.PID, pcs)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("num_symbols: 1\n") // pprof only wants to know that there are some
	for i, name := range names {
		if name == "" {
			continue
		}
		if fmt.Fprintf(&b, "%#x %s\n", pcs[i], short(name)); b.Len() > maxUnread {
			return bad("the names of %d addresses take more than %d MiB: ask for fewer at a time", len(pcs), maxUnread>>20)
		}
	}
	return h.text(w, b.String())
}

// short leaves out type arguments, as runtime.Func.Name does.
func short(name string) string {
	from, to := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']')
	if from < 0 || to < from {
		return name
	}
	return name[:from] + "[...]" + name[to+1:]
}
