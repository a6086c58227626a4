package discover

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Kubernetes says who is asked for the pods of this node: the kubelet, the API server, or nobody. Files are read anew for
// each question, since they are rotated.
type Kubernetes struct {
	Kubelet string // URL, such as "https://10.0.0.7:10250"; the token needs the right to get nodes/proxy, or nodes/pods
	API     string // URL of the API server; the token needs the right to list pods
	Node    string // name of this node, for the API server

	TokenFile string // "": no token is sent
	CAFile    string // certificates of the servers; "": those of the system
	// InsecureKubelet does not verify the kubelet's certificate, which many clusters leave self-signed. Whoever is in between
	// gets the token.
	InsecureKubelet bool
}

// serviceAccount is where the kubelet puts a pod's credentials.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

// InCluster is the configuration of a pod: the API server that the pod is told, if it is told its node, too, by the variable
// NODE_NAME (of the downward API: spec.nodeName). ok is false elsewhere.
func InCluster(getenv func(string) string) (k Kubernetes, ok bool) {
	host, port, node := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT"), getenv("NODE_NAME")
	if host == "" || port == "" || node == "" {
		return Kubernetes{}, false
	}
	return Kubernetes{
		API: "https://" + net.JoinHostPort(host, port), Node: node,
		TokenFile: serviceAccount + "token", CAFile: serviceAccount + "ca.crt",
	}, true
}

// Check says what is wrong with k.
func (k *Kubernetes) Check() error {
	_, err := k.sources()
	return err
}

func (k *Kubernetes) sources() (sources []*source, err error) {
	if k.Kubelet != "" {
		u, errURL := k.parse("kubelet", k.Kubelet)
		if errURL == nil {
			sources = append(sources, newSource("kubelet", k.asker(u.JoinPath("pods").String(), k.InsecureKubelet)))
		}
		err = errors.Join(err, errURL)
	}
	if k.API != "" {
		u, errURL := k.parse("API server", k.API)
		if errURL == nil && k.Node == "" {
			errURL = errors.New("kubernetes: the API server is asked for the pods of a node: give the node's name")
		}
		if errURL == nil {
			u = u.JoinPath("api", "v1", "pods")
			// resourceVersion=0: from its memory, not from etcd
			u.RawQuery = url.Values{"fieldSelector": {"spec.nodeName=" + k.Node}, "resourceVersion": {"0"}}.Encode()
			sources = append(sources, newSource("kubernetes", k.asker(u.String(), false)))
		}
		err = errors.Join(err, errURL)
	}
	return sources, err
}

// parse checks a URL. A token is not sent in clear, but to this machine.
func (k *Kubernetes) parse(what, s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("kubernetes: the %s's URL: %w", what, err)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("kubernetes: the %s's URL is %q, and not of the form https://HOST:PORT", what, u.Redacted())
	case u.Scheme == "http" && k.TokenFile != "" && !net.ParseIP(u.Hostname()).IsLoopback() && u.Hostname() != "localhost":
		return nil, fmt.Errorf("kubernetes: the %s's URL %q would send the token in clear: https is wanted", what, s)
	}
	return u, nil
}

func (k Kubernetes) asker(url string, insecure bool) asker {
	return func(ctx context.Context) (*snapshot, error) {
		r := request{url: url, limit: maxPodsAnswer}
		config, err := k.tls(insecure)
		if err == nil && k.TokenFile != "" {
			r.token, err = readToken(k.TokenFile)
		}
		if err != nil {
			return nil, err
		}
		s := newSnapshot()
		client := newHTTPClient(&http.Transport{DisableKeepAlives: true, TLSClientConfig: config})
		if err := getJSON(ctx, client, r, func(dec *json.Decoder) error { return decodePods(dec, s.addKubernetes) }); err != nil {
			return nil, fmt.Errorf("ask for the pods of this node: %w", err)
		}
		return s, nil
	}
}

func (k *Kubernetes) tls(insecure bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	if k.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(k.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read Kubernetes certificates: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read Kubernetes certificates: %s holds none in PEM form", k.CAFile)
	}
	return c, nil
}

func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read Kubernetes token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken))
	token := strings.TrimSpace(string(b))
	if err != nil || token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("read Kubernetes token: %s holds none: %w", path, errors.Join(err, os.ErrInvalid))
	}
	return token, nil
}

// kubePod is what is wanted of a pod (Kubernetes API v1).
type kubePod struct {
	Metadata struct {
		Name, Namespace, UID string
		Labels               map[string]string
		Annotations          struct {
			Mirror string `json:"kubernetes.io/config.mirror"` // of a pod from a file: what the kubelet calls it
		}
	}
	Status struct {
		ContainerStatuses, InitContainerStatuses, EphemeralContainerStatuses []kubeContainer
	}
}

type kubeContainer struct {
	Name, Image string
	ContainerID string // "containerd://ID"
}

func (s *snapshot) addKubernetes(p *kubePod) {
	m := &p.Metadata
	pod := Pod{UID: m.UID, Name: m.Name, Namespace: m.Namespace, Labels: m.Labels}
	s.addPod(pod)
	if m.Annotations.Mirror != "" {
		pod.UID = m.Annotations.Mirror
		s.addPod(pod)
	}
	for _, list := range [][]kubeContainer{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			_, id, _ := strings.Cut(c.ContainerID, "://")
			s.addContainer(id, Container{Name: c.Name, Image: c.Image, PodUID: m.UID})
		}
	}
}

// decodePods reads a PodList, of which one pod at a time is in memory.
func decodePods(dec *json.Decoder, add func(*kubePod)) error {
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return fmt.Errorf("decode pods: no list of pods: %w", errors.Join(err, os.ErrInvalid))
	}
	found := false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return fmt.Errorf("decode pods: %w", err)
		}
		if key == "items" {
			found, err = true, eachElement(dec, add)
		} else {
			err = dec.Decode(new(json.RawMessage))
		}
		if err != nil {
			return fmt.Errorf("decode pods: %w", err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("decode pods: %w", err)
	}
	if !found {
		return fmt.Errorf("decode pods: an answer without items: %w", os.ErrInvalid)
	}
	return nil
}
