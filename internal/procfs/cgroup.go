package procfs

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const (
	maxCgroups     = 64 << 10
	maxCgroupLines = 64 // version 1 has a dozen controllers
)

// Cgroup is the control group of a process in one hierarchy (cgroups(7)).
type Cgroup struct {
	// Controllers are those of a version 1 hierarchy, or its name ("name=systemd"); nil in version 2.
	Controllers []string
	// Path begins with "/", below the root of the reader's cgroup namespace; "/.." elements lead out of that.
	Path string
}

// V2 says whether it is the group of the unified hierarchy.
func (c *Cgroup) V2() bool { return len(c.Controllers) == 0 }

// Has says whether a version 1 hierarchy has the controller, or the name.
func (c *Cgroup) Has(controller string) bool { return slices.Contains(c.Controllers, controller) }

// Cgroups reads /proc/PID/cgroup.
func (p Proc) Cgroups() ([]Cgroup, error) {
	b, err := p.read("cgroup", maxCgroups)
	if err != nil {
		return nil, gone(err)
	}
	return ParseCgroups(b)
}

// ParseCgroups parses the content of a cgroup file: lines "ID:CONTROLLERS:PATH". A path may hold colons; a newline in
// it, which the kernel does not escape, ends the list.
func ParseCgroups(b []byte) ([]Cgroup, error) {
	var groups []Cgroup
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") || len(groups) == maxCgroupLines {
			return groups, fmt.Errorf("parse control groups: line %.80q: %w", line, ErrFormat)
		}
		c := Cgroup{Path: strings.TrimSuffix(f[2], deletedSuffix)} // the group is removed, its last process exits
		if f[1] != "" {
			c.Controllers = strings.Split(f[1], ",")
		}
		groups = append(groups, c)
	}
	return groups, nil
}
