package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
)

// pageRows are the processes that one page lists. With more services than fewServices their list is folded.
const (
	pageRows    = 500
	fewServices = 30
)

// indexPage is the first page.
type indexPage struct {
	Host      string
	Query     string
	All       int // processes, whatever the query
	Found     int
	From      int // of the first that is listed, from 0
	Processes []processRow
	Services  []serviceRow
	Kinds     []string
	Before    string // address of the page before; "": there is none
	Next      string
}

type processRow struct {
	owner
	Go     string // version
	Labels []export.Label
}

type serviceRow struct {
	owner
	Linkable bool
}

// Few says whether the list of services leaves the processes in sight.
func (p indexPage) Few() bool { return len(p.Services) <= fewServices }

// goVersion is the label that has its own column.
const goVersion = "go_version"

func (u *UI) index(w http.ResponseWriter, r *http.Request) {
	procs := u.o.Source.Processes()
	p := indexPage{Host: u.o.Host, Query: strings.TrimSpace(r.FormValue("q")), All: len(procs), Kinds: kinds}
	words := strings.Fields(strings.ToLower(p.Query))
	procs = slices.DeleteFunc(slices.Clone(procs), func(p pprofhttp.Process) bool { return !matches(p, words) })
	slices.SortFunc(procs, func(a, b pprofhttp.Process) int {
		if (a.Service == "") != (b.Service == "") {
			return cmp.Compare(b.Service, a.Service) // those of no service are the last
		}
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.PID, b.PID))
	})
	p.Found, p.Services = len(procs), services(procs)
	from, _ := strconv.Atoi(r.FormValue("from")) // what is no number is the beginning
	p.From = min(max(from, 0), max(len(procs)-1, 0))
	end := min(p.From+pageRows, len(procs))
	for _, proc := range procs[p.From:end] {
		p.Processes = append(p.Processes, newRow(proc))
	}
	if p.From > 0 {
		p.Before = p.address(max(p.From-pageRows, 0))
	}
	if end < len(procs) {
		p.Next = p.address(end)
	}
	u.show(w, http.StatusOK, "index", p)
}

func (p *indexPage) address(from int) string {
	v := url.Values{}
	if p.Query != "" {
		v.Set("q", p.Query)
	}
	if from > 0 {
		v.Set("from", strconv.Itoa(from))
	}
	return "/?" + v.Encode()
}

// matches says whether each word is in some text about the process.
func matches(p pprofhttp.Process, words []string) bool {
	if len(words) == 0 {
		return true
	}
	texts := []string{strconv.Itoa(p.PID), "pid=" + strconv.Itoa(p.PID), strings.ToLower(p.Comm), strings.ToLower("service_name=" + p.Service)}
	for _, l := range p.Labels {
		texts = append(texts, strings.ToLower(l.Name+"="+l.Value))
	}
	for _, word := range words {
		if !slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, word) }) {
			return false
		}
	}
	return true
}

func newRow(p pprofhttp.Process) processRow {
	row := processRow{owner: owner{PID: p.PID, Service: p.Service, Comm: p.Comm, Start: p.Start, Count: 1}}
	for _, l := range p.Labels {
		switch l.Name {
		case goVersion:
			row.Go = l.Value
		case "pid", "comm": // they have columns of their own
		default:
			row.Labels = append(row.Labels, l)
		}
	}
	return row
}

// services lists those of processes, which are sorted by service.
func services(procs []pprofhttp.Process) (list []serviceRow) {
	for _, p := range procs {
		if n := len(list); n > 0 && list[n-1].Service == p.Service {
			list[n-1].Count++
			continue
		}
		if p.Service != "" {
			list = append(list, serviceRow{owner{Service: p.Service, Count: 1}, linkable(p.Service)})
		}
	}
	return list
}

// Processes says how many there are.
func (o *owner) Processes() string {
	switch o.Count {
	case 0:
		return "it has ended"
	case 1:
		return "1 process"
	}
	return fmt.Sprintf("%d processes", o.Count)
}
