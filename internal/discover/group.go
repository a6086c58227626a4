package discover

import (
	"strings"

	"github.com/pprofd/pprofd/internal/procfs"
)

// group is what a process's control group says of it. Sources of the forms: systemd.unit(5) and systemd's docs/CGROUP_DELEGATION.md;
// moby daemon/oci_linux.go (docker-ID.scope, /docker/ID), Kubernetes pkg/kubelet/cm/cgroup_manager_linux.go
// (kubepods, with and without slices), containerd internal/cri/server/podsandbox (cri-containerd-ID.scope), cri-o
// internal/config/cgmgr (crio-ID.scope), podman libpod/oci_conmon_linux.go (libpod-ID.scope).
type group struct {
	path        string // the group, "" where it is not known
	unit        string // innermost service outside of a container, or inside of the container that runs systemd; with ".service"
	containerID string // innermost
	podUID      string // with dashes where it is a UUID
}

// containerPrefixes are what runtimes put before the ID; conmon is podman's and cri-o's monitor, outside of the container.
var containerPrefixes = []string{"docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-", "containerd-", "buildkit-", ""}

// groupOf chooses among the hierarchies: all runtimes and systemd put a process into the same group of each that they use,
// and leave it in the root of the others.
func groupOf(cgroups []procfs.Cgroup) group {
	var best group
	rank := -1
	for i := range cgroups {
		g := parseGroup(cgroups[i].Path)
		if r := g.rank(&cgroups[i]); r > rank {
			best, rank = g, r
		}
	}
	return best
}

// rank prefers what tells most, then what systemd keeps.
func (g *group) rank(c *procfs.Cgroup) int {
	r := 0
	if g.containerID != "" {
		r += 32
	}
	if g.podUID != "" {
		r += 16
	}
	if g.path != "/" {
		r += 8
	}
	switch {
	case c.V2():
		r += 3
	case c.Has("name=systemd"):
		r += 2
	case c.Has("memory"), c.Has("cpu"):
		r++
	}
	return r
}

// parseGroup reads a path from the outside inwards.
func parseGroup(path string) group {
	g := group{path: path}
	for element := range strings.SplitSeq(path, "/") {
		if uid := podUID(element); uid != "" {
			g.podUID = uid
		}
		if id := containerID(element); id != "" {
			g.containerID, g.unit = id, "" // the unit is the runtime's
		}
		if isService(element) {
			g.unit = element
		}
	}
	return g
}

// isService leaves out the manager of a user's session, whose services are below it.
func isService(element string) bool {
	return strings.HasSuffix(element, ".service") && len(element) > len(".service") && !strings.HasPrefix(element, "user@")
}

// containerID is the ID in an element: PREFIX-ID.scope, PREFIX-ID, ID, or what containerd writes if it is told to use
// systemd's form without systemd, SLICE:PREFIX:ID.
func containerID(element string) string {
	if i := strings.LastIndexByte(element, ':'); i >= 0 {
		element = element[i+1:]
	}
	element = strings.TrimSuffix(element, ".scope")
	for _, prefix := range containerPrefixes {
		if id, ok := strings.CutPrefix(element, prefix); ok && isContainerID(id) {
			return id
		}
	}
	return ""
}

// containerIDLen: all runtimes of this file make 256 bits, in hex.
const containerIDLen = 64

func isContainerID(s string) bool {
	return len(s) == containerIDLen && strings.Trim(s, "0123456789abcdef") == ""
}

// podUID is that of "podUID", and of "kubepods-burstable-podUID.slice", where systemd wants underscores. Pods from files
// have a hash of 32 digits.
func podUID(element string) string {
	if i := strings.IndexByte(element, ':'); i >= 0 {
		element = element[:i]
	}
	element = strings.TrimSuffix(element, ".slice")
	i := strings.LastIndex(element, "pod")
	if i < 0 || i > 0 && (element[i-1] != '-' || !strings.Contains(element, "kubepods")) {
		return ""
	}
	uid := strings.ReplaceAll(element[i+len("pod"):], "_", "-")
	const uuid, hash = 36, 32
	if len(uid) != uuid && len(uid) != hash || strings.Trim(uid, "0123456789abcdef-") != "" {
		return ""
	}
	return uid
}
