package parca

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// StartReal starts the server that PARCA_BIN names, and returns its address. Without that variable the test is skipped.
func StartReal(t testing.TB) (addr string) {
	t.Helper()
	binary := os.Getenv("PARCA_BIN")
	if binary == "" {
		t.Skip("needs PARCA_BIN: the path of a Parca server to compare with")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "parca.yaml")
	text := fmt.Sprintf("object_storage: {bucket: {type: FILESYSTEM, config: {directory: %q}}}\n", dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr = freePort(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), binary, "--config-path="+config, "--http-address="+addr, "--storage-active-memory=67108864")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("Parca said:\n%s", b[max(0, len(b)-4000):])
		}
	})
	waitReady(t, addr)
	return addr
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitReady(t testing.TB, addr string) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err = get(t.Context(), addr, "types", between()); err == nil {
			return
		}
	}
	t.Fatalf("Parca does not answer: %v", err)
}

func between() url.Values {
	return url.Values{"start": {time.Now().Add(-24 * time.Hour).Format(time.RFC3339)}, "end": {time.Now().Add(time.Hour).Format(time.RFC3339)}}
}

// Get asks the REST interface of a real server: what is "types", "labels", "query". It returns JSON.
func Get(t testing.TB, addr, what string, parameters url.Values) []byte {
	t.Helper()
	for k, v := range between() {
		if what != "query" {
			parameters[k] = v
		}
	}
	b, err := get(t.Context(), addr, what, parameters)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func get(ctx context.Context, addr, what string, parameters url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/profiles/"+what+"?"+parameters.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", what, answer.Status, b)
	}
	return b, err
}
