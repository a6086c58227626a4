package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// dockerContainer is an element of the answer to GET /containers/json (Docker Engine API v1.24 and later; Podman has it, too).
type dockerContainer struct {
	ID     string `json:"Id"`
	Names  []string
	Image  string
	Labels map[string]string
}

// dockerAsker asks for the containers that run.
func dockerAsker(path string) asker {
	return func(ctx context.Context) (*snapshot, error) {
		client := newHTTPClient(&http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
		})
		s := newSnapshot()
		err := getJSON(ctx, client, request{url: "http://docker/containers/json", limit: maxAnswer}, func(dec *json.Decoder) error {
			return eachElement(dec, s.addDocker)
		})
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			err = fmt.Errorf("%w: %w", errAbsent, err)
		}
		if err != nil {
			return nil, fmt.Errorf("ask Docker at %s: %w", path, err)
		}
		return s, nil
	}
}

func (s *snapshot) addDocker(c *dockerContainer) {
	name := c.Labels[kubeContainerName]
	if name == "" && len(c.Names) > 0 {
		name = strings.TrimPrefix(c.Names[0], "/")
	}
	uid := c.Labels[kubePodUID]
	s.addContainer(c.ID, Container{Name: name, Image: c.Image, PodUID: uid, Labels: c.Labels})
	if uid != "" { // labels of the pod itself are not known here
		s.addPod(Pod{UID: uid, Name: c.Labels[kubePodName], Namespace: c.Labels[kubePodNamespace]})
	}
}

// newHTTPClient does not follow redirections: whoever is asked answers.
func newHTTPClient(t *http.Transport) *http.Client {
	t.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// request is a GET.
type request struct {
	url, token string
	limit      int64 // bytes of the answer
}

// getJSON has read decode the answer to a request, as it comes.
func getJSON(ctx context.Context, client *http.Client, r request, read func(*json.Decoder) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "pprofd")
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("it answers %s: %q", resp.Status, said)
	}
	err = read(json.NewDecoder(&bounded{resp.Body, r.limit}))
	if err != nil && ctx.Err() != nil { // which is why the answer ends where it does
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// eachElement decodes an array, of which one element at a time is in memory.
func eachElement[T any](dec *json.Decoder, add func(*T)) error {
	token, err := dec.Token()
	switch {
	case err != nil:
		return fmt.Errorf("decode answer: %w", err)
	case token == nil: // null: an empty list, as Go writes it
		return nil
	case token != json.Delim('['):
		return errors.New("decode answer: it is no list")
	}
	for dec.More() {
		var v T
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("decode answer: %w", err)
		}
		add(&v)
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}
