package discover

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// quick gives up soon.
func quick(t *testing.T) context.Context { return within(t, time.Second) }

// patient is for answers that take their time on a busy machine.
func patient(t *testing.T) context.Context { return within(t, 30*time.Second) }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// runtimeServer is a container runtime, as far as it is asked.
type runtimeServer struct {
	cri.UnimplementedRuntimeServiceServer
	sandboxes  []*cri.PodSandbox
	containers []*cri.Container
	err        error
	hang       bool
}

func (s *runtimeServer) ListPodSandbox(ctx context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	if s.hang {
		<-ctx.Done()
	}
	if r.GetFilter().GetState().GetState() != cri.PodSandboxState_SANDBOX_READY {
		return nil, errors.New("pods that have ended are asked for")
	}
	return &cri.ListPodSandboxResponse{Items: s.sandboxes}, s.err
}

func (s *runtimeServer) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	if r.GetFilter().GetState().GetState() != cri.ContainerState_CONTAINER_RUNNING {
		return nil, errors.New("containers that have ended are asked for")
	}
	return &cri.ListContainersResponse{Containers: s.containers}, s.err
}

// socket is a path that fits: 107 bytes are what unix(7) takes.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	if len(path) > maxPathSocket {
		t.Fatalf("%s is too long for a socket: set TMPDIR", path)
	}
	return path
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serveCRI(t *testing.T, s *runtimeServer) (path string) {
	t.Helper()
	path = socket(t)
	l := listen(t, path)
	g := grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	cri.RegisterRuntimeServiceServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return path
}

func serveHTTP(t *testing.T, h http.HandlerFunc) (path string) {
	t.Helper()
	path = socket(t)
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = listen(t, path)
	s.Start()
	t.Cleanup(s.Close)
	return path
}

// rawServer answers every connection with the same bytes, and holds it.
func rawServer(t *testing.T, answer string) (path string) {
	t.Helper()
	path = socket(t)
	l := listen(t, path)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, answer)
			t.Cleanup(func() { c.Close() })
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return path
}

func TestCRI(t *testing.T) {
	s := &runtimeServer{
		sandboxes: []*cri.PodSandbox{{
			Id: "sandbox", Metadata: &cri.PodSandboxMetadata{Name: "web-0", Namespace: "shop", Uid: uid},
			Labels: map[string]string{"app": "web", kubePodName: "web-0", kubePodNamespace: "shop", kubePodUID: uid},
		}},
		containers: []*cri.Container{
			{Id: id1, PodSandboxId: "sandbox", Metadata: &cri.ContainerMetadata{Name: "nginx"}, Image: &cri.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "nginx:1"}, Labels: map[string]string{"a": "b"}},
			{Id: id2, Image: &cri.ImageSpec{Image: "sha256:2"}},
			{},
		},
	}
	got, err := criAsker(serveCRI(t, s))(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	want := &snapshot{
		containers: map[string]Container{
			id1: {Name: "nginx", Image: "nginx:1", PodUID: uid, Labels: map[string]string{"a": "b"}},
			id2: {Image: "sha256:2", Labels: map[string]string{}},
		},
		pods: map[string]Pod{uid: {UID: uid, Name: "web-0", Namespace: "shop", Labels: map[string]string{"app": "web"}}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(snapshot{})); diff != "" {
		t.Error(diff)
	}
}

// wants are what an error has to be.
func wantError(t *testing.T, what string, err error, absent bool, says string) {
	t.Helper()
	if err == nil || errors.Is(err, errAbsent) != absent || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want %q", what, err, says)
	}
}

func TestCRIThatFails(t *testing.T) {
	huge := &runtimeServer{}
	for i := range 20_000 {
		huge.containers = append(huge.containers, &cri.Container{Id: fmt.Sprint(i), Labels: map[string]string{"x": strings.Repeat("x", 1000)}})
	}
	for what, c := range map[string]struct {
		path   string
		absent bool
		says   string
	}{
		"no socket":         {"/nonexistent/x.sock", true, "no such file"},
		"no CRI":            {serveCRI(t, &runtimeServer{err: status.Error(codes.Unimplemented, "unknown service")}), true, "unknown service"},
		"refused":           {serveCRI(t, &runtimeServer{err: status.Error(codes.PermissionDenied, "go away")}), false, "go away"},
		"hangs":             {serveCRI(t, &runtimeServer{hang: true}), false, "DeadlineExceeded"},
		"huge":              {serveCRI(t, huge), false, "larger than max"},
		"garbage":           {rawServer(t, strings.Repeat("garbage", 1000)), false, ""},
		"says nothing":      {rawServer(t, ""), false, ""},
		"no socket but dir": {t.TempDir(), false, ""},
	} {
		begin := time.Now()
		ctx := quick(t)
		if what == "huge" {
			ctx = patient(t)
		}
		_, err := criAsker(c.path)(ctx)
		wantError(t, what, err, c.absent, c.says)
		if took := time.Since(begin); took > 5*time.Second && what != "huge" {
			t.Errorf("%s: took %v", what, took)
		}
	}
}

const dockerAnswer = `[
 {"Id":"` + id1 + `","Names":["/web","/other/web"],"Image":"nginx:1","ImageID":"sha256:1","State":"running","Labels":{"a":"b"},"Ports":[{"PrivatePort":80}]},
 {"Id":"` + id2 + `","Names":["/k8s_x_y"],"Image":"sha256:2","Labels":{"io.kubernetes.container.name":"x","io.kubernetes.pod.name":"y-0","io.kubernetes.pod.namespace":"z","io.kubernetes.pod.uid":"` + uid + `"}},
 {"Id":"3","Names":[],"Labels":null}
]`

func TestDocker(t *testing.T) {
	got, err := dockerAsker(serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/containers/json" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, dockerAnswer)
	}))(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	kube := map[string]string{kubeContainerName: "x", kubePodName: "y-0", kubePodNamespace: "z", kubePodUID: uid}
	want := &snapshot{
		containers: map[string]Container{
			id1: {Name: "web", Image: "nginx:1", Labels: map[string]string{"a": "b"}},
			id2: {Name: "x", Image: "sha256:2", PodUID: uid, Labels: kube},
			"3": {Labels: map[string]string{}},
		},
		pods: map[string]Pod{uid: {UID: uid, Name: "y-0", Namespace: "z", Labels: map[string]string{}}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(snapshot{})); diff != "" {
		t.Error(diff)
	}
}

// answers are a server's, good and bad, and what is said of them. Good ones are of the first of formats %s.
func badAnswers(list string) map[string]struct {
	handler http.HandlerFunc
	says    string
} {
	text := func(code int, s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, s)
		}
	}
	wrap := func(s string) string { return fmt.Sprintf(list, s) }
	return map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"401": {text(http.StatusUnauthorized, "Unauthorized"), `401 Unauthorized: "Unauthorized"`},
		"500": {text(http.StatusInternalServerError, strings.Repeat("x", 1000)), "500 Internal Server Error"},
		"redirection": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x", http.StatusFound)
		}, "302"},
		"garbage":    {text(http.StatusOK, "<html>"), "decode"},
		"wrong type": {text(http.StatusOK, wrap(`{"Id":7,"metadata":7}`)), "decode"},
		"no list":    {text(http.StatusOK, `{"items":{}}`), "decode"},
		"a number":   {text(http.StatusOK, `7`), "decode"},
		"cut":        {text(http.StatusOK, wrap(`{"Id":"x"}`)[:10]), "decode"},
		"empty":      {text(http.StatusOK, ""), "decode"},
		"hangs":      {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline exceeded"},
		"hangs halfway": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, wrap(`{"Id":"x"},`)[:12])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "deadline exceeded"},
		"does not end": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.TrimSuffix(wrap(`"`), `"]}`))
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, "decode"},
		"one long string": {func(w http.ResponseWriter, r *http.Request) {
			head, _, _ := strings.Cut(wrap("|"), "|")
			_, _ = io.WriteString(w, head+`{"Id":"`)
			for chunk := []byte(strings.Repeat("x", 1<<20)); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "too long"},
		"deep": {text(http.StatusOK, wrap(`{"Labels":`+strings.Repeat(`[`, 1<<20))), "decode"},
	}
}

func TestDockerThatFails(t *testing.T) {
	for what, c := range badAnswers(`[%s]`) {
		ctx := patient(t)
		if strings.HasPrefix(what, "hangs") {
			ctx = quick(t)
		}
		_, err := dockerAsker(serveHTTP(t, c.handler))(ctx)
		wantError(t, what, err, false, c.says)
	}
	_, err := dockerAsker("/nonexistent/docker.sock")(quick(t))
	wantError(t, "no socket", err, true, "no such file")
	_, err = dockerAsker(rawServer(t, "garbage\r\n\r\n"))(quick(t))
	wantError(t, "no HTTP", err, false, "malformed")
	_, err = dockerAsker(rawServer(t, "HTTP/1.1 200 OK\r\n"+strings.Repeat("A: "+strings.Repeat("x", 1000)+"\r\n", 1000)))(quick(t))
	wantError(t, "huge header", err, false, "header")
}

// Bounds on numbers hold, too.
func TestManyContainers(t *testing.T) {
	got, err := dockerAsker(serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		var all []dockerContainer
		for i := range maxObjects + 100 {
			c := dockerContainer{ID: fmt.Sprint(i), Labels: map[string]string{}}
			for l := range 2 * maxPodLabels {
				if i == 0 {
					c.Labels[fmt.Sprint(l)] = strings.Repeat("ä", maxValue)
				}
			}
			all = append(all, c)
		}
		_ = json.NewEncoder(w).Encode(all)
	}))(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	if first := got.containers["0"]; len(got.containers) != maxObjects || len(first.Labels) != maxPodLabels || len(first.Labels["0"])+len(first.Labels["127"]) > 2*maxValue {
		t.Errorf("%d containers, %d labels", len(got.containers), len(first.Labels))
	}
}

const podsAnswer = `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
 {"metadata":{"name":"web-0","namespace":"shop","uid":"` + uid + `","labels":{"app":"web"},"annotations":{"x":"y"}},
  "spec":{"containers":[{"name":"nginx"}]},
  "status":{"containerStatuses":[{"name":"nginx","image":"nginx:1","containerID":"containerd://` + id1 + `"},{"name":"starts","image":"x","containerID":""}],
   "initContainerStatuses":[{"name":"init","image":"i","containerID":"cri-o://` + id2 + `"}]}},
 {"metadata":{"name":"etcd","namespace":"kube-system","uid":"u-2","annotations":{"kubernetes.io/config.mirror":"hash"}},"status":{}}
]}`

// kubeServer is an API server, or a kubelet, with a certificate of its own.
func kubeServer(t *testing.T, h http.HandlerFunc) (url string, k Kubernetes) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	k.CAFile, k.TokenFile = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := errors.Join(os.WriteFile(k.CAFile, ca, 0o600), os.WriteFile(k.TokenFile, []byte("secret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return s.URL, k
}

func pods(t *testing.T, path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.RequestURI() != path:
			t.Errorf("%s is asked for", r.URL)
			http.NotFound(w, r)
		case r.Header.Get("Authorization") != "Bearer secret":
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, podsAnswer)
		}
	}
}

func TestKubernetes(t *testing.T) {
	want := &snapshot{
		containers: map[string]Container{
			id1: {Name: "nginx", Image: "nginx:1", PodUID: uid, Labels: map[string]string{}},
			id2: {Name: "init", Image: "i", PodUID: uid, Labels: map[string]string{}},
		},
		pods: map[string]Pod{
			uid:    {UID: uid, Name: "web-0", Namespace: "shop", Labels: map[string]string{"app": "web"}},
			"u-2":  {UID: "u-2", Name: "etcd", Namespace: "kube-system", Labels: map[string]string{}},
			"hash": {UID: "hash", Name: "etcd", Namespace: "kube-system", Labels: map[string]string{}},
		},
	}
	for name, c := range map[string]struct {
		path string
		set  func(k *Kubernetes, url string)
	}{
		"kubelet":                          {"/pods", func(k *Kubernetes, url string) { k.Kubelet = url }},
		"kubelet with its own certificate": {"/pods", func(k *Kubernetes, url string) { k.Kubelet, k.CAFile, k.InsecureKubelet = url+"/", "", true }},
		"API server": {"/api/v1/pods?fieldSelector=spec.nodeName%3Dnode+1&resourceVersion=0",
			func(k *Kubernetes, url string) { k.API, k.Node = url, "node 1" }},
	} {
		url, k := kubeServer(t, pods(t, c.path))
		c.set(&k, url)
		sources, err := k.sources()
		if err != nil || len(sources) != 1 {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := sources[0].ask(patient(t))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(snapshot{})); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestKubernetesThatFails(t *testing.T) {
	askWithin := func(ctx context.Context, k Kubernetes) error {
		sources, err := k.sources()
		if err != nil {
			return err
		}
		_, err = sources[0].ask(ctx)
		return err
	}
	ask := func(k Kubernetes) error { return askWithin(patient(t), k) }
	for what, c := range badAnswers(`{"kind":"PodList","items":[%s]}`) {
		if what == "one long string" {
			continue // its limit is too far for a test on a machine that others use
		}
		url, k := kubeServer(t, c.handler)
		k.Kubelet = url
		ctx := patient(t)
		if strings.HasPrefix(what, "hangs") {
			ctx = quick(t)
		}
		err := askWithin(ctx, k)
		wantError(t, what, err, false, c.says)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v tells the token", what, err)
		}
	}
	url, k := kubeServer(t, pods(t, "/pods"))
	k.Kubelet = url
	untrusted := k
	untrusted.CAFile = ""
	wantError(t, "an unknown certificate", ask(untrusted), false, "certificate")
	for file, c := range map[string]struct {
		field *string
		holds string
		says  string
	}{
		"no token":        {&k.TokenFile, "", "no such file"},
		"an empty token":  {&k.TokenFile, "\n", "holds none"},
		"a binary token":  {&k.TokenFile, "a\r\nX: y", "holds none"},
		"no certificates": {&k.CAFile, "", "no such file"},
		"no certificate":  {&k.CAFile, "x", "holds none"},
	} {
		path, was := filepath.Join(t.TempDir(), "f"), *c.field
		if c.holds != "" {
			if err := os.WriteFile(path, []byte(c.holds), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		*c.field = path
		wantError(t, file, ask(k), false, c.says)
		*c.field = was
	}
	if err := ask(k); err != nil {
		t.Errorf("it works no longer: %v", err)
	}
}

func TestSourcesAreChecked(t *testing.T) {
	for what, c := range map[string]Config{
		"relative":      {Containers: Containers{Sockets: []string{"docker.sock"}}},
		"unknown kind":  {Containers: Containers{Sockets: []string{"lxd:/run/x"}}},
		"long":          {Containers: Containers{Sockets: []string{"/" + strings.Repeat("x", 200)}}},
		"no URL":        {Kubernetes: Kubernetes{Kubelet: "10.0.0.1"}},
		"broken URL":    {Kubernetes: Kubernetes{Kubelet: "https://a b"}},
		"user in URL":   {Kubernetes: Kubernetes{API: "https://u:secret@h", Node: "n"}},
		"no node":       {Kubernetes: Kubernetes{API: "https://h"}},
		"token is seen": {Kubernetes: Kubernetes{Kubelet: "http://10.0.0.1:10255", TokenFile: "/x"}},
	} {
		if _, err := New(c); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", what, err)
		}
	}
	c := Config{Containers: Containers{Sockets: append(DefaultSockets(), "/var/run/docker.sock", "/x.sock", "/x.sock")},
		Kubernetes: Kubernetes{Kubelet: "http://127.0.0.1:10255", API: "https://[::1]:6443", Node: "n", TokenFile: "/x"}}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	stats := d.Stats().Sources
	for _, name := range []string{"cri:/run/containerd/containerd.sock", "docker:/var/run/docker.sock", "cri:/x.sock", "kubelet", "kubernetes"} {
		if _, ok := stats[name]; !ok || len(stats) != len(DefaultSockets())+4 {
			t.Errorf("%s is not in %v", name, stats)
		}
	}
	env := map[string]string{"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "443", "NODE_NAME": "n"}
	k, ok := InCluster(func(name string) string { return env[name] })
	if !ok || k.API != "https://[::1]:443" || k.Node != "n" || k.Check() != nil {
		t.Errorf("%+v", k)
	}
	delete(env, "NODE_NAME")
	if _, ok := InCluster(func(name string) string { return env[name] }); ok {
		t.Error("which node?")
	}
}

// TestRun: a process whose container is not known yet is found as soon as the runtime knows it.
func TestRun(t *testing.T) {
	m := newMachine(t)
	var started atomic.Bool
	var asked atomic.Int32
	docker := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if started.Load() {
			_, _ = io.WriteString(w, dockerAnswer)
			return
		}
		_, _ = io.WriteString(w, "[]")
	})
	broken := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusTeapot) })
	c := Config{ProcRoot: m.root, Select: selectors(t, "container=we?"), Containers: Containers{Sockets: []string{"docker:" + docker, "docker:" + broken, "docker:/nonexistent/s"}}}
	d := m.discovery(c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	until(t, "all are asked", func() bool {
		s := d.Stats().Sources
		return s["docker:"+docker].Asked > 0 && s["docker:"+broken].Errors > 0 && s["docker:/nonexistent/s"].Absent
	})
	m.spawn(fake{pid: 7, start: 1, comm: "x", exe: spin(t), cgroup: "/docker/" + id1})
	if d.Look(7, 1) {
		t.Error("nobody knows the container's name")
	}
	started.Store(true)
	until(t, "the process is found", func() bool { return len(scan(t, d)) == 1 })
	if service, ls, ok := d.Labels(7, 1); !ok || service != "web" || value(ls, "container_image") != "nginx:1" {
		t.Errorf("%s, %v, %v", service, ls, ok)
	}
	s := d.Stats().Sources["docker:"+broken]
	if s.LastError == nil || !strings.Contains(s.LastError.Error(), "418") || s.Errors != s.Asked {
		t.Errorf("%+v", s)
	}
	c.Select, c.Containers.Sockets = nil, []string{"docker:" + broken}
	if err := d.Reconfigure(c); err != nil {
		t.Fatal(err)
	}
	was := asked.Load()
	until(t, "the others are asked", func() bool { return d.Stats().Sources["docker:"+broken].Asked > s.Asked })
	if stats := d.Stats().Sources; len(stats) != 1 || asked.Load() > was+1 {
		t.Errorf("%+v", stats)
	}
	if service, _, _ := d.Labels(7, 1); service != "spin" {
		t.Errorf("what a source said is known longer than it: %q", service)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not happen that %s", what)
		}
	}
}

// FuzzAnswers decodes what servers may say.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(podsAnswer))
	f.Add([]byte(dockerAnswer))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSnapshot()
		reader := func() *json.Decoder { return json.NewDecoder(strings.NewReader(string(b))) }
		_ = decodePods(reader(), s.addKubernetes)
		_ = eachElement(reader(), s.addDocker)
		for id, c := range s.containers {
			if id == "" || len(c.Name) > maxValue || len(c.Labels) > maxPodLabels {
				t.Errorf("%q: %+v", id, c)
			}
		}
	})
}
