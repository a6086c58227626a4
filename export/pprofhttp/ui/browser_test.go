package ui

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/export/pprofhttp/ui/render"
	"github.com/pprofd/pprofd/internal/testprog/browser"
)

type css = browser.CSS

func near(got, want float64) bool { return math.Abs(got-want) < 0.01 }

func TestBrowserIndex(t *testing.T) {
	s := serve(t, shopHost())
	b := browser.Open(t, s.base, s.authorization())
	b.Open("/")
	if n := browser.Eval[int](b, `document.querySelectorAll('#processes tbody tr').length`); n != 7 {
		t.Errorf("%d rows", n)
	}
	if font := browser.Eval[string](b, `getComputedStyle(document.querySelector('th')).fontWeight`); font != "600" {
		t.Errorf("the style is not applied: %s", font)
	}
	b.Run(chromedp.Click(css("#processes details summary")))
	b.Shoot("index")
	b.Run(chromedp.SendKeys(css("input[name=q]"), "shop host=node\r"), chromedp.WaitVisible("//a[.='all 7']"))
	if n := browser.Eval[int](b, `document.querySelectorAll('#processes tbody tr').length`); n != 3 {
		t.Errorf("%d rows after filtering, at %s", n, b.Location())
	}
	b.Run(chromedp.Click(`//table[@id="processes"]//a[.="heap"]`), chromedp.WaitVisible(css("#stack-chart .boxbg")))
	if l := b.Location(); !strings.HasPrefix(l, "/pid/4242/ui/heap@") {
		t.Error(l)
	}
	b.Run(chromedp.Click(css(`#pprofd a[href$="/ui/"]`)), chromedp.WaitVisible(css("#kept")))
	b.Run(chromedp.SetValue(css("input[name=seconds]"), "7"), chromedp.Click(`//button[.="CPU time"]`), chromedp.WaitVisible(css("#stack-chart")))
	b.Run(chromedp.Click(css(`#pprofd a[href$="/ui/"]`)), chromedp.WaitVisible(`//td[.="CPU time of 7 s"]`))
	b.Shoot("process")
	b.Clean()
}

// The widths of the flame graph are the shares of the functions, and what one does with pprof's UI works.
func TestBrowserFlameGraph(t *testing.T) {
	s := serve(t, shopHost())
	b := browser.Open(t, s.base, s.authorization())
	b.Open("/pid/4242/ui/profile/flamegraph?seconds=5")
	shares := b.Boxes()
	for name, want := range map[string]float64{"root": 1, "main.main": 1, "main.serve": 0.9, "main.(*cart).total": 0.6, "main.hash": 0.6, "main.pay": 0.3, "main.idle": 0.1} {
		if got := shares[name]; !near(got, want) {
			t.Errorf("%s has %.3f of the width, want %.1f", name, got, want)
		}
	}
	if browser.Eval[bool](b, `['#list', '#disasm', '#config', '#action-source'].some(id => document.querySelector(id).checkVisibility())`) {
		t.Error("there are menus for what is not here")
	}
	b.Run(chromedp.SendKeys(css("#search"), "pay"), chromedp.WaitVisible(css("#stack-chart .hilite")))
	if text := browser.Eval[string](b, `Array.from(document.querySelectorAll('#stack-chart .hilite')).map(e => e.innerText).join()`); text != "main.pay" {
		t.Errorf("the search finds %q", text)
	}
	b.Shoot("flamegraph")
	browser.Eval[any](b, `document.querySelector('#search').value = ''`)
	b.Run(chromedp.Click(`//div[@class="boxtext" and .="main.serve"]`), chromedp.WaitVisible(css(".separator")))
	if shares := b.Boxes(); !near(shares["main.pay"], 1.0/3) {
		t.Errorf("main.pay has %.3f of main.serve", shares["main.pay"])
	}
	pinned := regexp.MustCompile(`^/pid/4242/ui/profile@[0-9T.]+/`).FindString(b.Location())
	for _, view := range []struct{ button, shows, path string }{
		{"#topbtn", "#rows tr", "top"}, {"#graphbtn", "#graph svg #node1", "graph"}, {"#peek", "#content pre", "peek"}, {"#flamegraph", "#stack-chart .boxbg", "flamegraph"},
	} {
		b.Run(chromedp.Click(css("#view"), chromedp.NodeVisible), chromedp.Click(css(view.button), chromedp.NodeVisible), chromedp.WaitVisible(css(view.shows)))
		if l := b.Location(); !strings.HasPrefix(l, pinned+view.path) {
			t.Errorf("%s leads to %s", view.button, l)
		}
		if text := b.Text(); !strings.Contains(text, "serve") || !strings.Contains(text, "process 4242") {
			t.Errorf("%s shows %s", view.button, text)
		}
		if view.path != "flamegraph" {
			b.Shoot(view.path)
		}
	}
	b.Open(pinned + "top?f=pay&sort=cum")
	if text := browser.Eval[string](b, `document.querySelector('#rows').innerText`); strings.Contains(text, "main.hash") || !strings.Contains(text, "main.pay") {
		t.Errorf("focused on pay: %s", text)
	}
	b.Clean()
}

// What has no samples is shown as that: pprof's pages have nothing for it.
func TestBrowserEmpty(t *testing.T) {
	h := shopHost()
	h.make = func(r pprofhttp.Request) (*profile.Profile, error) { return stacksOf(r.Kind), nil }
	s := serve(t, h)
	b := browser.Open(t, s.base, s.authorization())
	for kind, why := range map[string]string{"heap": "a small heap may have none", "profile": "the process did not run"} {
		for _, view := range views() {
			if view.View == render.Download {
				continue
			}
			b.Open("/pid/4242/ui/" + kind + "/" + view.View)
			if text := b.Text(); !strings.Contains(text, "no samples") || !strings.Contains(text, why) {
				t.Errorf("%s of %s says: %s", view.View, kind, text)
			}
		}
	}
	h.make = shopProfile
	b.Open("/pid/4242/ui/heap/top?f=nothing_is_called_so")
	if text := b.Text(); !strings.Contains(text, "Focus expression matched no samples") {
		t.Errorf("a focus that nothing has says: %s", text)
	}
	b.Clean()
}

func TestBrowserCompare(t *testing.T) {
	h := shopHost()
	n := int64(0)
	h.make = func(r pprofhttp.Request) (*profile.Profile, error) {
		n++
		return stacksOf(r.Kind, stack{frames: []string{"main.grows", "main.main"}, value: 30 * n}, stack{frames: []string{"main.shrinks", "main.main"}, value: 50 - 20*n}), nil
	}
	s := serve(t, h)
	b := browser.Open(t, s.base, s.authorization())
	b.Open("/pid/4242/ui/heap/top")
	b.Open("/pid/4242/ui/heap/top")
	b.Open("/pid/4242/ui/")
	b.Run(chromedp.Click(`//button[.="Compare"]`), chromedp.WaitVisible(css("#stack-chart .positive")))
	if text := b.Text(); !strings.Contains(text, "main.grows") || !strings.Contains(text, "main.shrinks") || !strings.Contains(text, "less memory in use") {
		t.Error(text)
	}
	if n := browser.Eval[int](b, `document.querySelectorAll('#stack-chart .negative').length`); n == 0 {
		t.Error("nothing shrinks")
	}
	b.Shoot("compare")
	b.Clean()
}

// evils are names that are markup, script or DOT somewhere.
var evils = []string{
	`<img src=x onerror=alert(1)>`, `</script><script>alert(2)</script>`, `"onmouseover="alert(3)`, `'-alert(4)-'`, `javascript:alert(5)`, "`${alert(6)}`",
	`</title></style></textarea><svg onload=alert(7)>`, `]]><svg/onload=alert(8)>`, `" URL="javascript:alert(9)" tooltip="`, `\" href="javascript:alert(10)`, `--><iframe src=javascript:alert(11)>`,
	`&lt;img src=x onerror=alert(12)&gt;`, `\u003cimg src=x onerror=alert(13)\u003e`, `{{alert(14)}}`, `<base href=//elsewhere.example/>`, `<meta http-equiv=refresh content=0;url=//elsewhere.example>`,
	`</body></html><script src=//elsewhere.example/x.js></script>`, "line\u2028alert(15)//", `x" image="/etc/passwd" y="`, `<table><tr><td>in DOT</td></tr></table>`,
}

// evilHost has processes, functions, files and labels that are called so.
func evilHost() *host {
	h := &host{}
	for i, name := range evils {
		h.procs = append(h.procs, pprofhttp.Process{PID: 100 + i, Service: name, Comm: name, Labels: []export.Label{{Name: "exe", Value: name}, {Name: name, Value: "x"}, {Name: "go_version", Value: name}}})
	}
	h.make = func(r pprofhttp.Request) (*profile.Profile, error) {
		var stacks []stack
		for _, name := range evils {
			stacks = append(stacks, stack{frames: []string{name, "main." + name, "main.main"}, value: 5, labels: map[string][]string{"request": {name}, name: {name}}})
		}
		p := stacksOf(r.Kind, stacks...)
		p.Mapping[0].File, p.Comments, p.DocURL = "/srv/"+evils[0], slices.Clone(evils), "javascript:alert(16)"
		p.Mapping[0].BuildID = evils[0]
		p.SampleType = append(p.SampleType, &profile.ValueType{Type: evils[3], Unit: evils[1]}, &profile.ValueType{Type: evils[0], Unit: evils[2]})
		for i, s := range p.Sample {
			s.Value = append(s.Value, int64(i), 1)
			s.NumLabel = map[string][]int64{evils[0]: {1}}
			s.NumUnit = map[string][]string{evils[0]: {evils[1]}}
		}
		p.DefaultSampleType = "cpu"
		return p, nil
	}
	return h
}

// Whoever names a process or function runs nothing in the browser of who looks at it: no dialog opens, nothing is written to the
// console, not even that the policy stopped something, and each name stands there as it is.
func TestBrowserRunsNoNames(t *testing.T) {
	s := serve(t, evilHost())
	b := browser.Open(t, s.base, s.authorization())
	texts := func(path string, want []string) {
		t.Helper()
		b.Open(path)
		b.Run(chromedp.Sleep(100 * time.Millisecond)) // for what would load
		shown := browser.Eval[string](b, `[document.body.textContent, ...Array.from(document.querySelectorAll('[title]')).map(e => e.title)].join('\n')`)
		for _, name := range want {
			if !strings.Contains(shown, name) {
				t.Errorf("%s does not show %q as text", path, name)
			}
		}
		if n := browser.Eval[int](b, `document.querySelectorAll('img, iframe, base, object, embed, #graph image, #graph a[*|href^="javascript"], meta[http-equiv], [onload], [onerror], [onmouseover]').length`); n > 0 {
			t.Errorf("%s has %d elements that names made", path, n)
		}
	}
	texts("/", evils)
	browser.Eval[any](b, `document.querySelectorAll('details').forEach(d => d.open = true)`)
	b.Shoot("names")
	texts("/?q="+url.QueryEscape(evils[0]), evils[:1])
	for i, name := range evils[:6] {
		texts(fmt.Sprintf("/pid/%d/ui/", 100+i), []string{name})
	}
	texts("/service/"+url.PathEscape(evils[0])+"/ui/", evils[:1])
	b.Refused(func() { texts("/pid/100/ui/"+url.PathEscape(evils[0])+"/top", evils[:1]) })
	texts("/pid/100/ui/profile/top?seconds=5", evils)
	dir := regexp.MustCompile(`^.*/`).FindString(b.Location())
	flat := func(view string) {
		t.Helper()
		b.Open(dir + view)
		b.Run(chromedp.Sleep(200 * time.Millisecond))
	}
	flat("flamegraph?tagroot=request")
	hoverAll(b)
	list := browser.Eval[[]string](b, `Array.from(document.querySelectorAll('#stack-chart > .boxbg')).map(e => e.title)`)
	for _, name := range evils {
		if !slices.ContainsFunc(list, func(title string) bool { return strings.Contains(title, name) }) {
			t.Errorf("the flame graph lacks %q", name)
		}
	}
	b.Shoot("flamegraph-names")
	flat("graph?n=200&nf=0&ef=0&trim=f")
	graph := strings.NewReplacer("\u00a0", " ", "\u2033", `"`, "\u29f5", `\`, "\uff06", "&").Replace(browser.Eval[string](b, `document.querySelector('#graph').textContent`))
	for _, name := range evils {
		if !strings.Contains(graph, name) {
			t.Errorf("the graph lacks %q", name)
		}
	}
	b.Shoot("graph-names")
	texts(dir+"peek?f=.", evils)
	texts(dir+"top?f="+url.QueryEscape(regexp.QuoteMeta(evils[1])), evils[1:2])
	b.Refused(func() { texts(dir+"top?f="+url.QueryEscape("("+evils[0]), evils[:1]) })
	texts(dir+"top?si="+url.QueryEscape(evils[3]), nil)
	texts(dir+"top?tagroot="+url.QueryEscape(evils[0]), evils[:1])
	b.Clean()
}

// hoverAll moves over every box, which gives it its title.
func hoverAll(b *browser.Tab) {
	browser.Eval[any](b, `document.querySelectorAll('#stack-chart > .boxbg').forEach(e => { for (const k of ['mouseenter', 'mouseleave']) e.dispatchEvent(new MouseEvent(k)) })`)
}
