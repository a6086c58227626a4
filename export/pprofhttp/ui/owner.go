package ui

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/pprofd/pprofd/export/pprofhttp"
)

// owner is whose profiles a page is about: a process, or all those of a service.
type owner struct {
	PID     int // 0: a service
	Service string
	Comm    string
	Start   uint64
	Count   int // processes now; 0: it has gone
}

// Path is where all about it is, without a slash at the end.
func (o *owner) Path() string {
	if o.PID > 0 {
		return "/pid/" + strconv.Itoa(o.PID)
	}
	return "/service/" + url.PathEscape(o.Service)
}

// UI is where its profiles are listed.
func (o *owner) UI() string { return o.Path() + "/ui/" }

// Kind says what it is.
func (o *owner) Kind() string {
	if o.PID > 0 {
		return fmt.Sprintf("process %d", o.PID)
	}
	return "service"
}

// Name is what somebody called it.
func (o *owner) Name() string {
	if o.PID > 0 && o.Service == "" {
		return o.Comm
	}
	return o.Service
}

// linkable says whether a service has an address: browsers take the names . and .. for steps along the path, however they are written.
func linkable(service string) bool { return service != "" && service != "." && service != ".." }

// owner finds whose page is asked for. One that has gone is known as long as profiles of it are kept.
func (u *UI) owner(r *http.Request) (*owner, error) {
	if service := r.PathValue("service"); service != "" {
		return u.service(service)
	}
	pid, err := strconv.Atoi(r.PathValue("pid"))
	if err != nil || pid <= 0 {
		return nil, pprofhttp.NotFound("%q is no process ID", r.PathValue("pid"))
	}
	o := &owner{PID: pid}
	for _, p := range u.o.Source.Processes() {
		if p.PID == pid {
			o.Service, o.Comm, o.Start, o.Count = p.Service, p.Comm, p.Start, 1
			return o, nil
		}
	}
	if last := u.kept.last(o.Path(), u.clock()); last != nil {
		o.Service, o.Comm, o.Start = last.of.Service, last.of.Comm, last.of.Start
		return o, nil
	}
	return nil, pprofhttp.NotFound("process %d is not profiled: it has ended, or is not wanted; the first page lists those that are", pid)
}

func (u *UI) service(name string) (*owner, error) {
	o := &owner{Service: name}
	for _, p := range u.o.Source.Processes() {
		if p.Service == name {
			o.Count++
		}
	}
	if o.Count == 0 && u.kept.last(o.Path(), u.clock()) == nil {
		return nil, pprofhttp.NotFound("no process of service %q is profiled; the first page lists those that are", name)
	}
	return o, nil
}

// with gives a handler the owner of its page.
func (u *UI) with(f func(http.ResponseWriter, *http.Request, *owner)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o, err := u.owner(r)
		if err != nil {
			u.fail(w, nil, err, "")
			return
		}
		f(w, r, o)
	}
}
