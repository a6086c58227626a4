package config

import "time"

// check finds values that contradict each other.
func (c *Config) check(d *decoder) {
	if !c.CPU.Enabled && !c.Heap.Enabled && !c.Allocs.Enabled {
		d.conflict("no kind of profile is enabled: enable cpu, heap or allocs", "cpu.enabled", "heap.enabled", "allocs.enabled")
	}
	if c.Dir.Path == "" {
		d.conflict("profiles would go nowhere: give a directory", "dir.path")
	}
	c.checkAge(d)
	if c.Listen != "" {
		w := c.Web()
		if err := w.Check(); err != nil {
			d.conflict(err.Error(), "auth.insecure_loopback", "auth.token_file", "auth.tls.client_ca", "auth.tls.cert", "auth.tls.key", "listen")
		}
	}
	given := c.Kubernetes.Kubelet != "" || c.Kubernetes.API != ""
	if c.Kubernetes.Enabled == "false" && given {
		d.conflict("there is a server to ask, and kubernetes.enabled is false: remove one of them", "kubernetes.kubelet", "kubernetes.api")
	}
	if err := c.Kubernetes.Check(); err != nil {
		d.conflict(err.Error(), "kubernetes.kubelet", "kubernetes.api", "kubernetes.node")
	}
}

// checkAge: a profile that is too old when it is finished would be of no use.
func (c *Config) checkAge(d *decoder) {
	for _, k := range []struct {
		enabled bool
		key     string
		length  time.Duration
	}{
		{c.CPU.Enabled, "window", c.Window},
		{c.Allocs.Enabled, "allocs.interval", c.Allocs.Interval},
	} {
		if k.enabled && c.Dir.MaxAge > 0 && k.length >= c.Dir.MaxAge {
			d.conflict("profiles of "+formatDuration(k.length)+" ("+k.key+") are older than dir.max_age ("+formatDuration(c.Dir.MaxAge)+
				") when they are finished: make one longer, or the other shorter", "dir.max_age", k.key)
		}
	}
}
