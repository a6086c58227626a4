package pprofhttp

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/pprofd/pprofd/export"
)

// group is a target group of Prometheus' HTTP service discovery
// (https://prometheus.io/docs/prometheus/latest/http_sd/).
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// Labels for whoever scrapes: Alloy's pyroscope.scrape puts the prefix before the path of each kind by itself, others can by
// relabeling.
const (
	schemeLabel = "__scheme__"
	prefixLabel = "__profile_path_prefix__"
	pathLabel   = "__metrics_path__"
)

// targets lists the processes, each as a target group of its own, at the address by which this server was called.
func (h *Handlers) targets(w http.ResponseWriter, r *http.Request) {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	groups := []group{} // not null
	for _, p := range h.source.Processes() {
		groups = append(groups, group{Targets: []string{r.Host}, Labels: labels(&p, scheme)})
	}
	err := h.answer(w, func(out io.Writer) error {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		return json.NewEncoder(out).Encode(groups)
	})
	if err != nil {
		refuse(w, err)
	}
}

func labels(p *Process, scheme string) map[string]string {
	all := make(map[string]string, len(p.Labels)+5)
	for _, l := range p.Labels {
		if name := export.LabelName(l.Name); !strings.HasPrefix(name, "__") { // those are for who scrapes
			all[name] = l.Value
		}
	}
	prefix := fmt.Sprintf("/pid/%d", p.PID)
	all["pid"], all["service_name"] = fmt.Sprint(p.PID), p.Service
	all[schemeLabel], all[prefixLabel], all[pathLabel] = scheme, prefix, prefix+"/debug/pprof/"
	return all
}
