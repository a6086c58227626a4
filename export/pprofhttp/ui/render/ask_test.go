package render

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func ask(t *testing.T, handlers map[string]http.Handler, target string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	w := httptest.NewRecorder()
	handlers[req.URL.Path].ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", target, w.Code, w.Body)
	}
}
