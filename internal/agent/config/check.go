package config

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// check finds values that contradict each other.
func (c *Config) check(d *decoder) {
	if !c.CPU.Enabled && !c.Heap.Enabled && !c.Allocs.Enabled && !c.Block.Enabled && !c.Mutex.Enabled && !c.Goroutine.Enabled && !c.Wall.Enabled {
		d.conflict("no kind of profile is enabled: enable cpu, heap, allocs, block, mutex, goroutine or wall",
			"cpu.enabled", "heap.enabled", "allocs.enabled", "block.enabled", "mutex.enabled", "goroutine.enabled", "wall.enabled")
	}
	if c.Dir.Path == "" && !c.Servers() {
		d.conflict("profiles would go nowhere: give a directory, or a server", "dir.path")
	}
	if c.CPU.MinHz > c.CPU.Highest() {
		d.conflict("the lowest rate is above the highest", "cpu.min_hz", "cpu.max_hz", "cpu.hz")
	}
	if c.CPU.MaxHz != 0 && c.CPU.MaxHz < c.CPU.Hz {
		d.conflict("the rate at the start is above the highest", "cpu.max_hz", "cpu.hz")
	}
	c.checkAge(d)
	c.checkServers(d)
	if c.Listen != "" {
		w := c.Web()
		if err := w.Check(); err != nil {
			d.conflict(err.Error(), "auth.insecure_loopback", "auth.token_file", "auth.tls.client_ca", "auth.tls.cert", "auth.tls.key", "listen")
		}
	}
	c.Kubernetes.check(d)
}

// check leaves the environment out of it: the file may be meant for another machine.
func (k *Kubernetes) check(d *decoder) {
	var given []string
	for key, set := range map[string]bool{
		"kubernetes.kubelet": k.Kubelet != "", "kubernetes.api": k.API != "", "kubernetes.node": k.Node != "",
		"kubernetes.token_file": k.TokenFile != "", "kubernetes.ca_file": k.CAFile != "", "kubernetes.insecure_kubelet": k.InsecureKubelet,
	} {
		if set {
			given = append(given, key)
		}
	}
	slices.SortFunc(given, func(a, b string) int { return cmp.Compare(d.lines[a], d.lines[b]) })
	switch err := k.Check(); {
	case err != nil:
		d.conflict(strings.TrimPrefix(err.Error(), "kubernetes: "), given...)
	case k.Enabled == "false" && (k.Kubelet != "" || k.API != ""):
		d.conflict("it is not asked, since kubernetes.enabled is false: remove one of them", given...)
	case k.Kubelet == "" && k.API == "" && len(given) > 0: // what InCluster finds has all of its own
		d.conflict("there is neither kubelet nor api to ask", given...)
	}
}

// checkAge: a profile that is too old when it is finished would be of no use.
func (c *Config) checkAge(d *decoder) {
	for _, k := range []struct {
		enabled bool
		key     string
		length  time.Duration
	}{
		{c.CPU.Enabled || c.Wall.Enabled, "window", c.Window},
		{c.Allocs.Enabled, "allocs.interval", c.Allocs.Interval},
		{c.Block.Enabled, "block.interval", c.Block.Interval},
		{c.Mutex.Enabled, "mutex.interval", c.Mutex.Interval},
	} {
		if k.enabled && c.Dir.MaxAge > 0 && k.length >= c.Dir.MaxAge {
			d.conflict("profiles of "+formatDuration(k.length)+" ("+k.key+") are older than dir.max_age ("+formatDuration(c.Dir.MaxAge)+
				") when they are finished: make one longer, or the other shorter", "dir.max_age", k.key)
		}
	}
}
