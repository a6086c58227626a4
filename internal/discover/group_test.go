package discover

import (
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/procfs"
)

const (
	id1 = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
	id2 = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"
	uid = "6fa1cbbd-1a2b-4c3d-8e9f-0123456789ab"
)

// Files as they are on machines of each kind.
func TestGroupOf(t *testing.T) {
	under := strings.ReplaceAll(uid, "-", "_")
	v1 := func(path string) string {
		return "12:cpu,cpuacct:" + path + "\n11:memory:" + path + "\n5:freezer:/\n1:name=systemd:" + path + "\n"
	}
	for name, c := range map[string]struct {
		file string
		want group
	}{
		"a service":                {"0::/system.slice/nginx.service\n", group{unit: "nginx.service"}},
		"a template's instance":    {"0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n", group{unit: "postgresql@15-main.service"}},
		"delegated":                {"0::/system.slice/containerd.service/init\n", group{unit: "containerd.service"}},
		"hybrid":                   {"4:memory:/system.slice/a.service\n3:pids:/\n1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n", group{unit: "a.service"}},
		"hybrid, v2 is the root":   {"4:memory:/\n1:name=systemd:/system.slice/a.service\n0::/\n", group{path: "/system.slice/a.service", unit: "a.service"}},
		"a session":                {"0::/user.slice/user-1000.slice/session-3.scope\n", group{}},
		"a user's manager":         {"0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", group{}},
		"a user's service":         {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service\n", group{unit: "syncthing.service"}},
		"a user's scope":           {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-code-42.scope\n", group{}},
		"no systemd":               {"0::/\n", group{}},
		"docker, systemd":          {"0::/system.slice/docker-" + id1 + ".scope\n", group{containerID: id1}},
		"docker, cgroupfs, v1":     {v1("/docker/" + id1), group{path: "/docker/" + id1, containerID: id1}},
		"docker under a parent":    {"0::/build.slice/docker-" + id1 + ".scope\n", group{containerID: id1}},
		"systemd in docker":        {"0::/system.slice/docker-" + id1 + ".scope/system.slice/ssh.service\n", group{containerID: id1, unit: "ssh.service"}},
		"podman":                   {"0::/machine.slice/libpod-" + id1 + ".scope/container\n", group{containerID: id1}},
		"podman, rootless":         {"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope\n", group{containerID: id1}},
		"podman, cgroupfs":         {"0::/libpod_parent/libpod-" + id1 + "\n", group{containerID: id1}},
		"podman as a unit":         {"0::/system.slice/web.service/libpod-payload-" + id1[:8] + "\n", group{unit: "web.service"}},
		"podman's monitor":         {"0::/machine.slice/libpod-conmon-" + id1 + ".scope\n", group{}},
		"nerdctl":                  {"0::/system.slice/nerdctl-" + id1 + ".scope\n", group{containerID: id1}},
		"pod, containerd, systemd": {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id1 + ".scope\n", group{containerID: id1, podUID: uid}},
		"pod, guaranteed":          {"0::/kubepods.slice/kubepods-pod" + under + ".slice/cri-containerd-" + id1 + ".scope\n", group{containerID: id1, podUID: uid}},
		"pod, containerd":          {"0::/kubepods/besteffort/pod" + uid + "/" + id1 + "\n", group{containerID: id1, podUID: uid}},
		"pod, containerd, v1":      {v1("/kubepods/burstable/pod" + uid + "/" + id1), group{path: "/kubepods/burstable/pod" + uid + "/" + id1, containerID: id1, podUID: uid}},
		"pod, cri-o, systemd":      {"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/crio-" + id1 + ".scope/container\n", group{containerID: id1, podUID: uid}},
		"pod, cri-o":               {"0::/kubepods/pod" + uid + "/crio-" + id1 + "\n", group{containerID: id1, podUID: uid}},
		"cri-o's monitor":          {"0::/kubepods.slice/kubepods-pod" + under + ".slice/crio-conmon-" + id1 + ".scope\n", group{podUID: uid}},
		"pod, mixed drivers":       {"0::/system.slice/containerd.service/kubepods-burstable-pod" + under + ".slice:cri-containerd:" + id1 + "\n", group{containerID: id1, podUID: uid}},
		"pod, docker, systemd":     {"0::/kubepods.slice/kubepods-pod" + under + ".slice/docker-" + id1 + ".scope\n", group{containerID: id1, podUID: uid}},
		"pod from a file":          {"0::/kubepods/burstable/pod" + id1[:32] + "/" + id2 + "\n", group{containerID: id2, podUID: id1[:32]}},
		"kind: a node in docker":   {"0::/system.slice/docker-" + id1 + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + under + ".slice/cri-containerd-" + id2 + ".scope\n", group{containerID: id2, podUID: uid}},
		"kubelet in kind":          {"0::/system.slice/docker-" + id1 + ".scope/kubelet.slice/kubelet.service\n", group{containerID: id1, unit: "kubelet.service"}},
		"seen from a container":    {"0::/../../pod" + uid + "/" + id2 + "\n", group{containerID: id2, podUID: uid}},
		"ECS":                      {"0::/ecs/" + id1[:32] + "/" + id2 + "\n", group{containerID: id2}},
		"upper case is no ID":      {"0::/docker/" + strings.ToUpper(id1) + "\n", group{}},
		"a short one neither":      {"0::/docker/" + id1[1:] + "\n", group{}},
		"a user's podcast":         {"0::/podcast/tripod" + uid + "/pod-" + uid + "/.service/x\n", group{}},
	} {
		groups, err := procfs.ParseCgroups([]byte(c.file))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if path, ok := strings.CutPrefix(strings.TrimSuffix(c.file, "\n"), "0::"); ok {
			c.want.path = path
		} else if c.want.path == "" {
			c.want.path = groups[len(groups)-1].Path
		}
		if got := groupOf(groups); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := groupOf(nil); got != (group{}) {
		t.Errorf("no file: %+v", got)
	}
}

func FuzzGroup(f *testing.F) {
	f.Add("/kubepods/burstable/pod" + uid + "/" + id1)
	f.Add("/system.slice/docker-" + id1 + ".scope/system.slice/ssh.service")
	f.Fuzz(func(t *testing.T, path string) {
		g := parseGroup(path)
		under := strings.ReplaceAll(path, "_", "-")
		if !strings.Contains(path, g.unit) || !strings.Contains(path, g.containerID) || !strings.Contains(under, g.podUID) {
			t.Errorf("%+v of %q", g, path)
		}
		if g.containerID != "" && len(g.containerID) != containerIDLen {
			t.Errorf("container %q", g.containerID)
		}
	})
}
