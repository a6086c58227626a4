package browser

import (
	"fmt"
	"image"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// What tests rely on is heard: a page that does what it must not is found out, be it stopped by its policy or not.
func TestWhatPagesDoIsHeard(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer x" {
			t.Errorf("%s without authorization", r.URL)
		}
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `<!DOCTYPE html><title>x</title><link rel=icon href=data:,>`)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src 'self' data:")
		fmt.Fprint(w, `<!DOCTYPE html><title>x</title><link rel=icon href=data:,><img src=http://elsewhere.example/x onerror=alert(1)><script>console.log(1); nothing()</script>`)
	}))
	defer s.Close()
	b := Open(t, s.URL, "Bearer x")
	heard := func(want ...string) {
		t.Helper()
		b.Open("/")
		b.Run(chromedp.Sleep(500 * time.Millisecond))
		bad := b.Heard()
		for _, w := range want {
			if !slices.ContainsFunc(bad, func(text string) bool { return strings.Contains(text, w) }) {
				t.Errorf("%s is not heard: %q", w, bad)
			}
		}
	}
	heard("Content Security Policy")
	b.BypassPolicy()
	heard("request to http://elsewhere.example/x", `dialog "1"`, "console.log", "exception")
	b.Refused(func() { b.Open("/missing") })
	b.Clean()
}

func TestInked(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 10, 10))
	if inked(img) != 0 {
		t.Error("an empty picture is not")
	}
	for i := range 25 {
		img.Pix[i*4] = 255
	}
	if got := inked(img); got != 0.25 {
		t.Error(got)
	}
}
