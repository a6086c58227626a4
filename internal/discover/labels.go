package discover

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/pprofd/pprofd/export"
)

// Names of labels. They do not change: profiles are searched by them.
const (
	labelService        = "service_name"
	labelPID            = "pid"
	labelExe            = "exe"
	labelComm           = "comm"
	labelUser           = "user"
	labelGoVersion      = "go_version"
	labelModule         = "module"
	labelModuleVersion  = "module_version"
	labelRevision       = "vcs_revision"
	labelHost           = "host"
	labelCgroup         = "cgroup"
	labelUnit           = "systemd_unit"
	labelContainerID    = "container_id"
	labelContainerName  = "container_name"
	labelContainerImage = "container_image"
	labelPod            = "pod"
	labelNamespace      = "namespace"
	labelPodLabel       = "pod_label_"
)

// Labels that are there while the process is relabeled, and dropped afterwards.
const (
	metaPrefix         = "__"
	metaCmdline        = "__meta_cmdline"
	metaUID            = "__meta_uid"
	metaContainerLabel = "__meta_container_label_"
	metaPodUID         = "__meta_kubernetes_pod_uid"
	metaPodName        = "__meta_kubernetes_pod_name"
	metaNamespace      = "__meta_kubernetes_namespace"
	metaPodLabel       = "__meta_kubernetes_pod_label_"
)

// maxValue bounds a label's value, in bytes.
const maxValue = 1 << 10

// clean makes a value what a label may hold: valid UTF-8, at most maxValue bytes.
func clean(s string) string {
	if len(s) <= maxValue && utf8.ValidString(s) {
		return strings.Clone(s) // not the whole answer that it was part of
	}
	s = strings.ToValidUTF8(s[:min(len(s), 2*maxValue)], string(utf8.RuneError))
	for len(s) > maxValue {
		cut := maxValue
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	return s
}

// sanitize makes a label's name of a key: "app.kubernetes.io/name" is "app_kubernetes_io_name".
func sanitize(key string) string {
	b := []byte(key)
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	return string(b)
}

// rules are what the configuration says of labels.
type rules struct {
	host    string
	static  map[string]string
	relabel []*relabel.Config
	drops   bool // a rule of relabel may drop a process
}

// checkLabels says what is wrong with the static labels.
func checkLabels(static map[string]string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(static)) {
		switch {
		case !model.LegacyValidation.IsValidLabelName(name):
			errs = append(errs, fmt.Errorf("label %q: a name has letters, digits and _, and does not begin with a digit", name))
		case strings.HasPrefix(name, metaPrefix):
			errs = append(errs, fmt.Errorf("label %q: names that begin with %s are for relabeling only", name, metaPrefix))
		case len(static[name]) > maxValue || !utf8.ValidString(static[name]):
			errs = append(errs, fmt.Errorf("label %q: the value is no UTF-8, or longer than %d bytes", name, maxValue))
		}
	}
	return errors.Join(errs...)
}

// newRules checks what it is given. The relabeling rules are copied.
func newRules(c *Config) (*rules, error) {
	r := &rules{host: clean(c.Host), static: maps.Clone(c.Labels)}
	err := checkLabels(c.Labels)
	for i, from := range c.Relabel {
		rule := *from
		if errRule := rule.Validate(model.LegacyValidation); errRule != nil {
			err = errors.Join(err, fmt.Errorf("relabel_configs, rule %d: %w", i+1, errRule))
		}
		switch rule.Action {
		case relabel.Drop, relabel.Keep, relabel.DropEqual, relabel.KeepEqual:
			r.drops = true
		}
		r.relabel = append(r.relabel, &rule)
	}
	return r, err
}

// label makes the labels of a process. keep is false where relabeling drops it.
func (r *rules) label(k *known) (service string, out []export.Label, keep bool) {
	b := labels.NewBuilder(labels.EmptyLabels())
	set := func(name, value string) {
		if value != "" && b.Get(name) == "" {
			b.Set(name, clean(value))
		}
	}
	for name, value := range r.static { // they win
		set(name, value)
	}
	for _, l := range r.builtin(k) {
		set(l.Name, l.Value)
	}
	if len(r.relabel) > 0 {
		for _, l := range meta(k) {
			set(l.Name, l.Value)
		}
		if !relabel.ProcessBuilder(b, r.relabel...) {
			return "", nil, false
		}
	}
	service = b.Get(labelService)
	if service == "" { // relabeling has taken it away
		service = clean(serviceName(k))
	}
	b.Range(func(l labels.Label) {
		if l.Name != labelService && !strings.HasPrefix(l.Name, metaPrefix) {
			out = append(out, export.Label{Name: l.Name, Value: clean(l.Value)})
		}
	})
	slices.SortFunc(out, func(a, b export.Label) int { return strings.Compare(a.Name, b.Name) })
	return clean(service), out, true
}

func (r *rules) builtin(k *known) []export.Label {
	ls := []export.Label{
		{Name: labelService, Value: serviceName(k)},
		{Name: labelPID, Value: strconv.Itoa(k.key.PID)},
		{Name: labelExe, Value: k.exe},
		{Name: labelComm, Value: k.comm},
		{Name: labelUser, Value: k.user},
		{Name: labelGoVersion, Value: k.program.GoVersion},
		{Name: labelModule, Value: k.program.Module},
		{Name: labelModuleVersion, Value: k.program.Version},
		{Name: labelRevision, Value: k.program.Revision},
		{Name: labelHost, Value: r.host},
		{Name: labelCgroup, Value: k.group.path},
		{Name: labelUnit, Value: k.group.unit},
		{Name: labelContainerID, Value: k.group.containerID},
		{Name: labelContainerName, Value: k.container.Name},
		{Name: labelContainerImage, Value: k.container.Image},
		{Name: labelPod, Value: k.pod.Name},
		{Name: labelNamespace, Value: k.pod.Namespace},
	}
	return append(ls, prefixed(labelPodLabel, k.pod.Labels)...)
}

// meta are the labels for relabeling only.
func meta(k *known) []export.Label {
	ls := []export.Label{
		{Name: metaCmdline, Value: k.command()},
		{Name: metaUID, Value: strconv.FormatUint(uint64(k.uid), 10)},
		{Name: metaPodUID, Value: orElse(k.pod.UID, k.group.podUID)},
		{Name: metaPodName, Value: k.pod.Name},
		{Name: metaNamespace, Value: k.pod.Namespace},
	}
	ls = append(ls, prefixed(metaPodLabel, k.pod.Labels)...)
	return append(ls, prefixed(metaContainerLabel, k.container.Labels)...)
}

// prefixed are labels whose names are made of keys. Where two keys make the same name, the one that sorts first counts.
func prefixed(prefix string, from map[string]string) []export.Label {
	var ls []export.Label
	for _, key := range slices.Sorted(maps.Keys(from)) {
		ls = append(ls, export.Label{Name: prefix + sanitize(key), Value: from[key]})
	}
	return ls
}

// serviceName is the systemd service, the container, the program's own name, or what the process calls itself.
func serviceName(k *known) string {
	for _, name := range []string{strings.TrimSuffix(k.group.unit, ".service"), k.container.Name, programName(k.program)} {
		if name != "" {
			return name
		}
	}
	return k.comm
}

// programName is the last element of the main package's path, without a major version: as go build names the program.
func programName(p *Program) string {
	for _, from := range []string{p.Package, p.Module} {
		if from == "" || from == "command-line-arguments" {
			continue
		}
		name := path.Base(from)
		if version, ok := strings.CutPrefix(name, "v"); ok && strings.Trim(version, "0123456789") == "" && path.Dir(from) != "." {
			name = path.Base(path.Dir(from))
		}
		return name
	}
	return ""
}
