package otlp

import (
	"cmp"
	"path"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/pprofd/pprofd/export"
)

// schema is the version of the semantic conventions that names of attributes are taken from.
const schema = "https://opentelemetry.io/schemas/1.41.0"

// attributeOf are the conventions' names for labels that need no more than another name. Labels that are not among them keep
// their names: there is no convention for a module, a systemd unit or what the user has added.
var attributeOf = map[string]string{
	"cgroup":       "process.linux.cgroup",
	"container_id": "container.id",
	"go_version":   "process.runtime.version",
	"host":         "host.name",
	"namespace":    "k8s.namespace.name",
	"pod":          "k8s.pod.name",
	"user":         "process.owner",
	"vcs_revision": "vcs.ref.head.revision",
}

const podLabel = "pod_label_" // and the label's name

// putResource says which process p is of.
func putResource(p *export.Profile, program string, to pcommon.Map) {
	to.EnsureCapacity(len(p.Labels) + 6)
	to.PutStr("service.name", serviceName(p))
	to.PutStr("process.runtime.name", "go") // docs/resource/process.md, "Go runtimes"
	pod := false
	for _, l := range p.Labels {
		pod = pod || l.Name == "pod"
	}
	for _, l := range p.Labels {
		if l.Value != "" {
			putLabel(to, l, pod)
		}
	}
	if _, ok := to.Get("process.pid"); !ok && p.PID != 0 {
		to.PutInt("process.pid", int64(p.PID))
	}
	if _, ok := to.Get("process.executable.name"); ok {
		return
	}
	if strings.HasPrefix(program, "/") {
		putLabel(to, export.Label{Name: "exe", Value: program}, pod)
	} else if p.Comm != "" {
		to.PutStr("process.executable.name", strings.ToValidUTF8(p.Comm, "\uFFFD"))
	}
}

// serviceName is never empty: docs/resource/service.md says what it is where nothing is known.
func serviceName(p *export.Profile) string {
	return strings.ToValidUTF8(cmp.Or(p.Service, p.Comm, "unknown_service:go"), "\uFFFD")
}

func putLabel(to pcommon.Map, l export.Label, pod bool) {
	v := strings.ToValidUTF8(l.Value, "\uFFFD")
	if name := attributeOf[l.Name]; name != "" {
		to.PutStr(name, v)
		return
	}
	key, isPodLabel := strings.CutPrefix(l.Name, podLabel)
	switch {
	case l.Name == "pid":
		putPID(to, v)
	case l.Name == "exe":
		to.PutStr("process.executable.path", v)
		to.PutStr("process.executable.name", path.Base(v))
	case l.Name == "container_name" && pod:
		to.PutStr("k8s.container.name", v)
	case l.Name == "container_name":
		to.PutStr("container.name", v)
	case l.Name == "container_image":
		putImage(to, v)
	case l.Name == "module_version" && v != "(devel)":
		to.PutStr("service.version", v)
	case isPodLabel && key != "":
		to.PutStr("k8s.pod.label."+key, v)
	default:
		to.PutStr(l.Name, v)
	}
}

// putPID writes a number, as the convention has it; relabeling may have made something else of it.
func putPID(to pcommon.Map, v string) {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		to.PutInt("process.pid", n)
		return
	}
	to.PutStr("pid", v)
}

// putImage takes NAME[:TAG][@DIGEST] apart.
func putImage(to pcommon.Map, image string) {
	name, digest, _ := strings.Cut(image, "@")
	base, tag := name, ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') { // not a registry's port
		base, tag = name[:i], name[i+1:]
	}
	to.PutStr("container.image.name", base)
	if tag != "" {
		to.PutEmptySlice("container.image.tags").AppendEmpty().SetStr(tag)
	}
	if digest != "" {
		to.PutEmptySlice("container.image.repo_digests").AppendEmpty().SetStr(base + "@" + digest)
	}
}
