package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/pprof/profile"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/core"
)

const (
	token    = "0123456789abcdef0123456789abcdef"
	patience = time.Minute
	runc     = "runc"
	id       = "pprofd"
)

// pod is the DaemonSet's container as the kubelet would have it made, on this machine.
type pod struct {
	container core.Container
	spec      core.PodSpec
	dir       string // with its files: "bundle", "state" of runc, a directory for each volume
	log       bytes.Buffer
	done      chan error
	pid       int
}

// TestPod runs the DaemonSet's container: by runc, with containerd's default mounts, masked paths and seccomp filter, and with what the
// manifest says of capabilities, namespaces, volumes, limits, arguments and probes. It is a container without a kubelet, an API server
// and a network. The agent profiles a process of the host that belongs to another user.
func TestPod(t *testing.T) {
	if _, err := exec.LookPath(runc); err != nil || os.Getuid() != 0 {
		const lacks = "needs root and runc (apt-get install runc)"
		if os.Getenv("PPROFD_CI") != "" {
			t.Fatal(lacks)
		}
		t.Skip(lacks)
	}
	p := newPod(t)
	p.start(t)
	p.await(t, "ready", func() bool { return p.probe(p.container.StartupProbe) })
	if !p.probe(p.container.ReadinessProbe) || !p.probe(p.container.LivenessProbe) {
		t.Error("it has started, and is not ready, or not alive")
	}
	target := burner(t)
	var files []string
	p.await(t, "a CPU profile", func() bool {
		files, _ = filepath.Glob(filepath.Join(p.dir, "data", "*", fmt.Sprintf("%d-*", target), "cpu-*.pb.gz"))
		return len(files) > 0
	})
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	prof, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(prof.Function, func(f *profile.Function) bool { return strings.HasSuffix(f.Name, "kubernetes.burn") }) {
		t.Errorf("%s: the function that burns is not in it", files[0])
	}
	p.checkPull(t, fmt.Sprintf("/pid/%d/debug/pprof/heap", target))
	p.stop(t)
}

func newPod(t *testing.T) *pod {
	t.Helper()
	all := objects(t, read(t))
	p := &pod{spec: all[5].(*apps.DaemonSet).Spec.Template.Spec, dir: t.TempDir(), done: make(chan error, 1)}
	p.container = p.spec.Containers[0]
	p.volumes(t, all[4].(*core.ConfigMap))
	root := filepath.Join(p.dir, "bundle", "rootfs")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", root+entrypoint(t), "./cmd/pprofd")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := json.Marshal(p.runtimeSpec(t, root))
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, "bundle", "config.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var dockerEntrypoint = regexp.MustCompile(`(?m)^FROM scratch\nCOPY pprofd (/\S+)\nENTRYPOINT \["(/\S+)"\]$`)

// entrypoint is the only file of the image.
func entrypoint(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile")
	m := dockerEntrypoint.FindSubmatch(text)
	if err != nil || m == nil || !bytes.Equal(m[1], m[2]) {
		t.Fatalf("Dockerfile, %v: no image of one program", err)
	}
	return string(m[1])
}

// volumes makes a directory for each. The host's own directories are left alone.
func (p *pod) volumes(t *testing.T, config *core.ConfigMap) {
	t.Helper()
	for _, v := range p.spec.Volumes {
		files, mode := map[string]string{}, os.FileMode(0o644)
		switch {
		case v.ConfigMap != nil && v.ConfigMap.Name == config.Name:
			files = config.Data
		case v.Secret != nil:
			files["token"], mode = token, os.FileMode(*v.Secret.DefaultMode)
		case v.HostPath == nil || *v.HostPath.Type != core.HostPathDirectoryOrCreate:
			t.Fatalf("volume %s: of a kind that this test does not have", v.Name)
		}
		dir := filepath.Join(p.dir, v.Name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// runtimeSpec is what containerd's CRI plugin makes of the container.
func (p *pod) runtimeSpec(t *testing.T, root string) *oci.Spec {
	t.Helper()
	sc, limits := p.container.SecurityContext, p.container.Resources.Limits
	var caps []string
	for _, c := range sc.Capabilities.Add {
		caps = append(caps, "CAP_"+string(c))
	}
	opts := []oci.SpecOpts{
		oci.WithRootFSPath(root), oci.WithProcessArgs(append([]string{entrypoint(t)}, p.container.Args...)...),
		oci.WithEnv([]string{p.container.Env[0].Name + "=node"}), oci.WithHostname("pod"),
		oci.WithUIDGID(uint32(*sc.RunAsUser), uint32(*sc.RunAsGroup)), oci.WithCapabilities(caps),
		oci.WithMemoryLimit(uint64(limits.Memory().Value())), oci.WithCPUCFS(limits.CPU().MilliValue()*100, 100_000),
		oci.WithMounts(p.mounts()),
	}
	if !*sc.AllowPrivilegeEscalation {
		opts = append(opts, oci.WithNoNewPrivileges)
	}
	if *sc.ReadOnlyRootFilesystem {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	if p.spec.SecurityContext.HostPID {
		opts = append(opts, oci.WithHostNamespace(specs.PIDNamespace))
	}
	if sc.SeccompProfile.Type == core.SeccompProfileTypeRuntimeDefault {
		opts = append(opts, seccomp.WithDefaultProfile()) // reads the capabilities: last
	}
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: id}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (p *pod) mounts() (list []specs.Mount) {
	for _, m := range p.container.VolumeMounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		list = append(list, specs.Mount{
			Destination: m.MountPath, Type: "bind", Source: filepath.Join(p.dir, m.Name), Options: []string{"rbind", "rprivate", mode},
		})
	}
	return list
}

func (p *pod) runc(args ...string) *exec.Cmd {
	return exec.Command(runc, append([]string{"--root", filepath.Join(p.dir, "state")}, args...)...)
}

func (p *pod) start(t *testing.T) {
	t.Helper()
	cmd := p.runc("run", "--bundle", filepath.Join(p.dir, "bundle"), id)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		p.done <- cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = p.runc("delete", "--force", id).Run() // it is gone where the test went well
		<-ended
		if t.Failed() {
			t.Logf("the container's log:\n%s", p.log.Bytes())
		}
	})
	p.await(t, "running", func() bool {
		out, err := p.runc("state", id).Output()
		var state specs.State
		if err != nil || json.Unmarshal(out, &state) != nil || state.Status != specs.StateRunning {
			return false
		}
		p.pid = state.Pid
		return true
	})
}

// await waits until something holds, as long as the container runs.
func (p *pod) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(200 * time.Millisecond) {
		select {
		case err := <-p.done:
			p.done <- err
			t.Fatalf("the container ended: %v", err)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("not %s after %v", what, patience)
		}
	}
}

// get asks the agent, in the container's network.
func (p *pod) get(path string) (int, []byte, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: p.dial}}
	req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(int(p.container.Ports[0].ContainerPort))+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth("pprofd", token)
	answer, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, b, err
}

// dial connects from the container's network namespace; the thread that is there ends with its goroutine.
func (p *pod) dial(_ context.Context, network, addr string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		ns, errOpen := unix.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errOpen != nil {
			err = errOpen
			return
		}
		defer unix.Close(ns)
		if err = unix.Setns(ns, unix.CLONE_NEWNET); err == nil {
			conn, err = net.Dial(network, addr)
		}
	}()
	<-done
	return conn, err
}

func (p *pod) probe(probe *core.Probe) bool {
	if probe.HTTPGet.Port.StrVal != p.container.Ports[0].Name {
		return false
	}
	status, _, err := p.get(probe.HTTPGet.Path)
	return err == nil && status == http.StatusOK
}

// checkPull: the Secret's token opens what is behind it.
func (p *pod) checkPull(t *testing.T, path string) {
	t.Helper()
	status, b, err := p.get(path)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d, %v\n%s", path, status, err, b)
	}
	if prof, err := profile.ParseData(b); err != nil || len(prof.SampleType) != 4 {
		t.Errorf("%s: no heap profile, %v", path, err)
	}
}

// stop does what the kubelet does, and waits for as long.
func (p *pod) stop(t *testing.T) {
	t.Helper()
	if out, err := p.runc("kill", id, "TERM").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	grace := time.Duration(*p.spec.TerminationGracePeriodSeconds) * time.Second
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("the agent ended: %v", err)
		}
	case <-time.After(grace):
		t.Errorf("the agent has not ended %v after SIGTERM", grace)
	}
}

// burner starts a program of the user nobody, who alone may read it.
func burner(t *testing.T) (pid int) {
	t.Helper()
	const nobody = 65534
	dir, err := os.MkdirTemp("", "burner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "burner")
	if err := os.WriteFile(file, program, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, file} {
		if err := os.Chown(name, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), burnEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	return cmd.Process.Pid
}
