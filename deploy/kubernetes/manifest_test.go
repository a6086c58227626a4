package kubernetes

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
)

const manifest = "daemonset.yaml"

// decode does what the API server does to a new object: unknown and repeated fields are errors, defaults are filled in.
func decode(doc []byte) (runtime.Object, error) {
	codecs := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict)
	return runtime.Decode(codecs.UniversalDecoder(), doc)
}

func objects(t *testing.T, text []byte) (all []runtime.Object) {
	t.Helper()
	r := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		o, err := decode(doc)
		if err != nil {
			t.Fatalf("%s: %v\n%s", manifest, err, doc)
		}
		all = append(all, o)
	}
}

// validate is the API server's validation of a new object.
func validate(o runtime.Object) field.ErrorList {
	switch o := o.(type) {
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o)
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o)
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o)
	case *rbac.ClusterRole:
		return rbacvalidation.ValidateClusterRole(o, rbacvalidation.ClusterRoleValidationOptions{})
	case *rbac.ClusterRoleBinding:
		return rbacvalidation.ValidateClusterRoleBinding(o)
	case *apps.DaemonSet:
		return appsvalidation.ValidateDaemonSet(o, corevalidation.PodValidationOptions{})
	default:
		return field.ErrorList{field.InternalError(field.NewPath("kind"), fmt.Errorf("%T has no validation here", o))}
	}
}

func read(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestManifestIsValid(t *testing.T) {
	var kinds []string
	for _, o := range objects(t, read(t)) {
		kinds = append(kinds, fmt.Sprintf("%T", o))
		for _, err := range validate(o) {
			t.Errorf("%T: %v", o, err)
		}
	}
	want := []string{"*core.Namespace", "*core.ServiceAccount", "*rbac.ClusterRole", "*rbac.ClusterRoleBinding", "*core.ConfigMap", "*apps.DaemonSet"}
	if !slices.Equal(kinds, want) {
		t.Errorf("objects %q, want %q", kinds, want)
	}
}

// TestMistakesAreFound shows that the test above can fail.
func TestMistakesAreFound(t *testing.T) {
	for name, c := range map[string]struct{ old, new string }{
		"an unknown field":                    {"hostPID: true", "hostPid: true"},
		"a string for a number":               {"containerPort: 6061", `containerPort: "6061"`},
		"a volume that is not there":          {"- name: data\n              mountPath", "- name: date\n              mountPath"},
		"labels that the selector misses":     {"    metadata:\n      labels:\n        app.kubernetes.io/name: pprofd", "    metadata:\n      labels:\n        app.kubernetes.io/name: other"},
		"privileged without escalation":       {"runAsUser: 0", "privileged: true"},
		"all of CAP_SYS_ADMIN, no escalation": {"add: [BPF", "add: [CAP_SYS_ADMIN, BPF"},
		"no such profile of AppArmor":         {"{type: Unconfined}", "{type: None}"},
	} {
		t.Run(name, func(t *testing.T) {
			text := read(t)
			if bytes.Count(text, []byte(c.old)) == 0 {
				t.Fatalf("%s has no %q", manifest, c.old)
			}
			text = bytes.Replace(text, []byte(c.old), []byte(c.new), 1)
			if !refused(text) {
				t.Error("the manifest is accepted")
			}
		})
	}
}

func refused(text []byte) bool {
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		o, err := decode(doc)
		if err != nil || len(validate(o)) > 0 {
			return true
		}
	}
	return false
}

// TestPodHasOnlyThePowerItNeeds names all that it has of the host.
func TestPodHasOnlyThePowerItNeeds(t *testing.T) {
	ds := objects(t, read(t))[5].(*apps.DaemonSet)
	spec := ds.Spec.Template.Spec
	want := core.PodSecurityContext{HostPID: true}
	if diff := cmp.Diff(&want, spec.SecurityContext); diff != "" {
		t.Errorf("the pod, -want +got:\n%s", diff)
	}
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 0 {
		t.Fatalf("%d containers, %d before them; want 1 alone", len(spec.Containers), len(spec.InitContainers))
	}
	wantContainer := core.SecurityContext{
		RunAsUser: ptr(int64(0)), RunAsGroup: ptr(int64(0)), AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true),
		Capabilities: &core.Capabilities{
			Drop: []core.Capability{"ALL"},
			Add:  []core.Capability{"BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "CHECKPOINT_RESTORE", "SYSLOG"},
		},
		SeccompProfile:  &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
		AppArmorProfile: &core.AppArmorProfile{Type: core.AppArmorProfileTypeUnconfined},
	}
	if diff := cmp.Diff(&wantContainer, spec.Containers[0].SecurityContext, cmpopts.EquateEmpty()); diff != "" { // Privileged is nil
		t.Errorf("the container, -want +got:\n%s", diff)
	}
	var paths []string
	for _, v := range spec.Volumes {
		if v.HostPath != nil {
			paths = append(paths, v.HostPath.Path)
		}
	}
	if want := []string{"/var/lib/pprofd", "/run/containerd"}; !slices.Equal(paths, want) {
		t.Errorf("it has %q of the host, want %q", paths, want)
	}
}

func ptr[T any](v T) *T { return &v }
