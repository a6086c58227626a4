package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	sd "github.com/prometheus/prometheus/discovery/http"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/pprofd/pprofd/internal/testprog"
)

// scrapeConfig is what README.md says of Parca's configuration, as far as it is Prometheus' own.
type scrapeConfig struct {
	Client    config.HTTPClientConfig `yaml:",inline"`
	Discovery []*sd.SDConfig          `yaml:"http_sd_configs"`
	Relabel   []*relabel.Config       `yaml:"relabel_configs"`
}

// readmeScrape is README.md's example for the agent at addr.
func readmeScrape(t *testing.T, addr, token string) scrapeConfig {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "```yaml\nscrape_configs:")
	text, _, found := strings.Cut(text, "```")
	if !found {
		t.Fatal("README.md has no scrape_configs")
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	text = strings.NewReplacer("192.0.2.7:6061", addr, "/etc/parca/pprofd-token", file).Replace("scrape_configs:" + text)
	var c struct {
		Scrape []scrapeConfig `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Scrape) != 1 || len(c.Scrape[0].Discovery) != 1 || len(c.Scrape[0].Relabel) == 0 || c.Scrape[0].Client.Authorization == nil {
		t.Fatalf("README.md: %+v", c)
	}
	if err := c.Scrape[0].Client.Validate(); err != nil {
		t.Error(err)
	}
	for _, r := range c.Scrape[0].Relabel {
		r.NameValidationScheme = model.LegacyValidation // which whoever loads a configuration sets
		if err := r.Validate(model.LegacyValidation); err != nil {
			t.Error(err)
		}
	}
	return c.Scrape[0]
}

// discovered is what Prometheus' own discovery finds.
func discovered(t *testing.T, c *sd.SDConfig) []*targetgroup.Group {
	t.Helper()
	reg := prometheus.NewRegistry()
	metrics := c.NewDiscovererMetrics(reg, discovery.NewRefreshMetrics(reg))
	d, err := sd.NewDiscovery(c, discovery.DiscovererOptions{Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	groups, err := d.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

// target is one target of a group with all its labels, and those that scrapers add.
func target(g *targetgroup.Group, path string) *labels.Builder {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, set := range []model.LabelSet{g.Labels, g.Targets[0]} {
		for name, value := range set {
			b.Set(string(name), string(value))
		}
	}
	return b.Set("__profile_path__", path)
}

// TestScrape: Prometheus' own discovery finds all processes with their labels. By README.md's rules for Parca, and with the prefix that
// Alloy's pyroscope.scrape puts before its paths, each leads to the profile of its process; the token is taken in both forms.
func TestScrape(t *testing.T) {
	bin := ownPrograms(t, "heap", "debug")
	a := startPulled(t, bin)
	pids := map[string]string{
		"heap":  fmt.Sprint(testprog.Start(t, bin+"/heap", "-quiet").PID),
		"debug": fmt.Sprint(testprog.Start(t, bin+"/debug").PID),
	}
	var groups []*targetgroup.Group
	c := readmeScrape(t, a.addr, a.token)
	until(t, "both are found", func() bool {
		groups = discovered(t, c.Discovery[0])
		return len(groups) == len(pids)
	})
	basic := sd.DefaultSDConfig
	basic.URL = c.Discovery[0].URL
	basic.HTTPClientConfig.BasicAuth = &config.BasicAuth{Username: "pprofd", Password: config.Secret(a.token)}
	if got := discovered(t, &basic); len(got) != len(pids) {
		t.Errorf("%d targets with the token as password", len(got))
	}
	client, err := config.NewClientFromConfig(c.Client, "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		service := string(g.Labels["service_name"])
		if pid := string(g.Labels["pid"]); pid != pids[service] || g.Labels["comm"] != g.Labels["service_name"] || g.Labels["exe"] == "" {
			t.Errorf("labels %v", g.Labels)
		}
		for name, value := range g.Labels {
			if !model.LegacyValidation.IsValidLabelName(string(name)) || !value.IsValid() {
				t.Errorf("label %q = %q", name, value)
			}
		}
		const path = "/debug/pprof/heap"
		parca := target(g, path)
		if !relabel.ProcessBuilder(parca, c.Relabel...) {
			t.Error("dropped")
		}
		base := url.URL{Scheme: parca.Get("__scheme__"), Host: parca.Get("__address__")}
		alloy := base.JoinPath(string(g.Labels["__profile_path_prefix__"]), path)
		base.Path = parca.Get("__profile_path__")
		for _, u := range []string{base.String(), alloy.String()} {
			resp, err := client.Get(u)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusOK || !strings.Contains(u, "/pid/"+pids[service]+path) {
				t.Errorf("%s of %s: %s", u, service, resp.Status)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
