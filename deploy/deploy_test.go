package deploy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/pprofd/pprofd/internal/agent/config"
)

// manifest is what the tests here read of kubernetes/daemonset.yaml. Its own module checks that it is a manifest at all.
type manifest struct {
	Kind string
	Data map[string]string
	Spec struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Args            []string
					SecurityContext struct {
						Privileged   bool
						Capabilities struct{ Add, Drop []string }
					} `yaml:"securityContext"`
				}
			}
		}
	}
}

func manifests(t *testing.T) map[string]manifest {
	t.Helper()
	text, err := os.ReadFile("kubernetes/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]manifest)
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var m manifest
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[m.Kind] = m
	}
}

// TestConfigurations does what pprofd agent --check-config does.
func TestConfigurations(t *testing.T) {
	for name, text := range manifests(t)["ConfigMap"].Data {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args := manifests(t)["DaemonSet"].Spec.Template.Spec.Containers[0].Args
		if want := []string{"agent", "--config", "/etc/pprofd/" + name}; !slices.Equal(args, want) {
			t.Errorf("the container runs pprofd %q, want %q", args, want)
		}
		checkConfiguration(t, file)
	}
	c := checkConfiguration(t, "pprofd.yaml")
	defaults, err := config.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got, want strings.Builder
	if err := errors.Join(c.Print(&got), defaults.Print(&want)); err != nil || got.String() != want.String() {
		t.Errorf("pprofd.yaml says other than the defaults, %v:\n%s", err, got.String())
	}
}

func checkConfiguration(t *testing.T, file string) *config.Config {
	t.Helper()
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Dir.Path != "/var/lib/pprofd" { // StateDirectory of the unit, volume of the pod
		t.Errorf("%s has profiles in %q", file, c.Dir.Path)
	}
	return c
}

var boundingSet = regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`)

// TestCapabilities keeps unit, pod and README together: none of them has all of root's power. The pod goes without
// CAP_SYS_ADMIN, which no filter of system calls holds down there as it does in the unit.
func TestCapabilities(t *testing.T) {
	unit, errUnit := os.ReadFile("pprofd.service")
	readme, errReadme := os.ReadFile("README.md")
	if err := errors.Join(errUnit, errReadme); err != nil {
		t.Fatal(err)
	}
	var inUnit []string
	for _, m := range boundingSet.FindAllSubmatch(unit, -1) {
		for _, c := range strings.Fields(string(m[1])) {
			inUnit = append(inUnit, strings.TrimPrefix(c, "CAP_"))
		}
	}
	containers := manifests(t)["DaemonSet"].Spec.Template.Spec.Containers
	if len(containers) != 1 || len(inUnit) == 0 {
		t.Fatalf("%d containers, capabilities %q of the unit", len(containers), inUnit)
	}
	pod := containers[0].SecurityContext
	if !slices.Equal(append([]string{"SYS_ADMIN"}, pod.Capabilities.Add...), inUnit) || !slices.Equal(pod.Capabilities.Drop, []string{"ALL"}) || pod.Privileged {
		t.Errorf("the pod has %+v, the unit %q", pod, inUnit)
	}
	for _, c := range inUnit {
		if !bytes.Contains(readme, []byte("| `CAP_"+c+"` |")) {
			t.Errorf("README.md does not say what CAP_%s is for", c)
		}
	}
}
