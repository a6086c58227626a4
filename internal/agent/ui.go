package agent

import (
	"net/http"
	"os"

	"github.com/pprofd/pprofd/export/pprofhttp"
	"github.com/pprofd/pprofd/export/pprofhttp/ui"
	"github.com/pprofd/pprofd/export/pprofhttp/ui/render"
	"github.com/pprofd/pprofd/internal/agent/web"
)

// serveUI adds what people look at in a browser: the first page, and pprof's web UI for each process and service.
func serveUI(s *web.Server, source pprofhttp.Source) {
	host, _ := os.Hostname() // without a name the pages just do not tell it
	ui.New(ui.Options{Source: source, Command: render.Program(), Host: host}).
		Register(func(pattern string, h http.Handler) { s.Handle(web.Protected, pattern, h) })
}
