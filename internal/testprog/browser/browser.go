// Package browser has tests look at pages in headless Chromium, as a person would, and hears what pages do that they must not.
package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// CSS is a selector; a plain string is one of XPath.
type CSS = chromedp.CSS

// Tab is a tab of a browser of its own.
type Tab struct {
	t    testing.TB
	base string
	tab  func() context.Context

	mu       sync.Mutex
	bad      []string // scripts that ran, errors, addresses elsewhere
	requests int
}

const (
	stepTime = 30 * time.Second
	allTime  = 3 * time.Minute
)

// Open starts Chromium for pages below base (http://HOST:PORT), which it asks for with the header Authorization. Without Chromium
// the test fails; with -short it is skipped.
func Open(t testing.TB, base, authorization string) *Tab {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a browser")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("pages are tested in headless Chromium: apt-get install chromium fonts-dejavu-core, or go test -short (%v)", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), allTime)
	alloc, stop := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 800),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Env("HOME="+t.TempDir()))...)
	tab, closeTab := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(tab) // waits for the browser's end
		closeTab()
		stop()
		cancel()
	})
	b := &Tab{t: t, base: base, tab: func() context.Context { return tab }}
	err = errors.Join(chromedp.Do(tab), chromedp.Listen(tab, b.heard)) // the first starts the browser
	_, errNetwork := chromedp.Call(tab, network.Enable, network.EnableParams{})
	_, errHeaders := chromedp.Call(tab, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Authorization": authorization}})
	if err := errors.Join(err, errNetwork, errHeaders); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return b
}

// heard takes notes of what a page does.
func (b *Tab) heard(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *page.EventJavascriptDialogOpening:
		b.bad = append(b.bad, fmt.Sprintf("dialog %q on %s", e.Message, e.URL))
		go func() {
			_, _ = chromedp.Call(b.tab(), page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{})
		}()
	case *runtime.EventConsoleAPICalled:
		b.bad = append(b.bad, "console."+string(e.Type))
	case *runtime.EventExceptionThrown:
		b.bad = append(b.bad, "exception "+e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		b.bad = append(b.bad, fmt.Sprintf("%s %s: %s", e.Entry.Level, e.Entry.URL, e.Entry.Text))
	case *network.EventRequestWillBeSent:
		b.requests++
		if u := e.Request.URL; !strings.HasPrefix(u, b.base+"/") && !strings.HasPrefix(u, "data:") {
			b.bad = append(b.bad, "request to "+u)
		}
	}
}

// Heard is what pages have done that they must not, since it was asked last.
func (b *Tab) Heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	bad := b.bad
	b.bad = nil
	return bad
}

// Clean fails the test if pages have done what they must not: a dialog, an error or any word on the console, what the page's policy
// had to stop, a request to elsewhere.
func (b *Tab) Clean() {
	b.t.Helper()
	for _, bad := range b.Heard() {
		b.t.Error(bad)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.requests == 0 {
		b.t.Error("no request was seen: the test sees nothing")
	}
}

// Refused does something that leads to an answer with a status of 4xx or 5xx, which Chromium tells of; of nothing else it may.
func (b *Tab) Refused(do func()) {
	b.t.Helper()
	b.Clean()
	do()
	bad := b.Heard()
	rest := slices.DeleteFunc(slices.Clone(bad), func(bad string) bool { return strings.Contains(bad, "the server responded with a status of ") })
	if len(rest) > 0 || len(bad) != 1 {
		b.t.Errorf("a page that is refused: %q", bad)
	}
}

// Run does what a person does.
func (b *Tab) Run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	Result(b, chromedp.Steps(actions...))
}

// Open goes to a path.
func (b *Tab) Open(path string) {
	b.t.Helper()
	b.Run(chromedp.Navigate(b.base+path), chromedp.WaitReady(CSS("body")))
}

// Result is what an action yields.
func Result[T any](b *Tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.tab(), stepTime)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("in Chromium: %v; it told: %q", err, b.Heard())
	}
	return v
}

// Eval is what an expression of JavaScript is on the page.
func Eval[T any](b *Tab, expression string) T {
	b.t.Helper()
	return Result(b, chromedp.Evaluate[T](expression))
}

// BypassPolicy has the pages that are opened from now on do what their content security policy forbids.
func (b *Tab) BypassPolicy() {
	b.t.Helper()
	if _, err := chromedp.Call(b.tab(), page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true}); err != nil {
		b.t.Fatal(err)
	}
}

// Location is where the tab is, below base.
func (b *Tab) Location() string {
	b.t.Helper()
	return strings.TrimPrefix(Eval[string](b, "location.href"), b.base)
}

// Text is all that the page shows.
func (b *Tab) Text() string {
	b.t.Helper()
	return Eval[string](b, "document.body.innerText")
}

// Boxes are the names in pprof's flame graph and their widths as shares of the widest.
func (b *Tab) Boxes() map[string]float64 {
	b.t.Helper()
	b.Run(chromedp.WaitVisible(CSS("#stack-chart .boxbg")))
	list := Eval[[]struct {
		Name  string
		Width float64
	}](b, `Array.from(document.querySelectorAll('#stack-chart > .boxbg')).map(e => ({Name: e.innerText, Width: e.getBoundingClientRect().width}))`)
	shares, widest := map[string]float64{}, 0.0
	for _, box := range list {
		widest = max(widest, box.Width)
	}
	for _, box := range list {
		shares[box.Name] += box.Width / widest
	}
	return shares
}

// Shoot keeps a picture of the tab as out/screenshots/NAME.png of the repository, and fails where there is nothing on it.
func (b *Tab) Shoot(name string) {
	b.t.Helper()
	picture := Result(b, chromedp.CaptureScreenshot())
	dir, err := screenshots()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644)); err != nil {
		b.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		b.t.Fatal(err)
	}
	if share := inked(img); share < 0.01 {
		b.t.Errorf("%s is empty: %.4f of it differs from the background", name, share)
	}
}

// screenshots is the directory that CI keeps.
func screenshots() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ".golangci.yml")); err == nil {
			return filepath.Join(dir, "out", "screenshots"), nil
		}
	}
	return "", fmt.Errorf("screenshots: the test does not run in the repository (%w)", err)
}

// inked is the share of pixels that differ from the commonest color.
func inked(img image.Image) float64 {
	count, r := map[[3]uint32]int{}, img.Bounds()
	most := 0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			red, green, blue, _ := img.At(x, y).RGBA()
			c := [3]uint32{red, green, blue}
			count[c]++
			most = max(most, count[c])
		}
	}
	return 1 - float64(most)/float64(r.Dx()*r.Dy())
}
