package deploy

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checkPages: the agent draws pages as the unit lets it, without the right to change its user.
func checkPages(t *testing.T) {
	token, err := os.ReadFile(filepath.Join(dataDir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for path, want := range map[string]string{
		"/":                                      `href="/service/shop-heap/ui/"`,
		"/service/shop-heap/ui/heap/top":         "makeTopTable(",
		"/service/shop/ui/profile/top?seconds=3": "main.",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:6061"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("pprofd", strings.TrimSpace(string(token)))
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d, %v: lacks %s in %s", path, resp.StatusCode, err, want, tail(string(b)))
		}
	}
}
