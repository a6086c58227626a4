package pyroscope

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/export"
	fake "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"
)

func secret(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAuthorization(t *testing.T) {
	const basic, bearer = "Basic bWU6czNjcmV0OnR3bw==", "Bearer tok.en"
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{MultiTenant: true, Authorization: func(a string) bool { return a == basic || a == bearer }})
		password, token := secret(t, "s3cret:two\n"), secret(t, "tok.en\n")
		for name, o := range map[string]Options{
			"basic":  {BasicAuth: BasicAuth{Username: "me", PasswordFile: password}},
			"bearer": {BearerTokenFile: token},
		} {
			t.Run(name, func(t *testing.T) {
				s.Forget()
				o.URL, o.API, o.Tenant, o.Headers = s.URL(), api, "team-1", map[string]string{"X-Route": "a b", "user-agent": "me"}
				e := newExporter(t, o)
				send(t, e, cpuProfile(t, one))
				x := only(t, s, "cpu")
				h := s.Requests()[0].Header
				if x.Tenant != "team-1" || h.Get("X-Route") != "a b" || h.Get("User-Agent") != "me" {
					t.Errorf("tenant %q, headers %v", x.Tenant, h)
				}
				// The file changes, and changes back.
				path := o.BearerTokenFile + o.BasicAuth.PasswordFile
				good, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range []struct {
					text string
					want verdict
				}{{"hunter2", verdict{export.Later, "unauthorized", "401"}}, {"hunter2\nhunter3", verdict{export.Later, "secret", path}}, {"", verdict{export.Later, "secret", path}}} {
					if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
						t.Fatal(err)
					}
					err := e.Export(t.Context(), cpuProfile(t, one))
					judged(t, err, c.want)
					if strings.Contains(err.Error(), "hunter") {
						t.Errorf("the secret is told: %v", err)
					}
				}
				if err := os.WriteFile(path, good, 0o600); err != nil {
					t.Fatal(err)
				}
				send(t, e, cpuProfile(t, one))
			})
		}
	})
}

// TestBasePath: a proxy may serve the server below a path.
func TestBasePath(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{})
		e := newExporter(t, Options{URL: s.URL() + "/below/this/", API: api})
		judged(t, e.Export(t.Context(), cpuProfile(t, one)), verdict{export.Later, "http_404", "see url"})
		want := "/below/this/push.v1.PusherService/Push"
		if api == APIIngest {
			want = "/below/this/ingest"
		}
		if got := s.Requests()[0].Path; got != want {
			t.Errorf("%s, not %s", got, want)
		}
	})
}

func TestOptions(t *testing.T) {
	ok := "http://127.0.0.1:4040"
	for name, c := range map[string]struct {
		o    Options
		says string
	}{
		"no url":              {Options{}, "http://HOST:PORT"},
		"no scheme":           {Options{URL: "localhost:4040"}, "http://HOST:PORT"},
		"another scheme":      {Options{URL: "ftp://h"}, "http://HOST:PORT"},
		"a password":          {Options{URL: "http://me:hunter2@h"}, "basic_auth"},
		"a password, garbled": {Options{URL: "http://me:hunter2@h:port"}, "invalid port"},
		"a query":             {Options{URL: ok + "?token=hunter2"}, "ends with its path"},
		"api":                 {Options{URL: ok, API: "otlp"}, "push and ingest"},
		"timeout":             {Options{URL: ok, Timeout: -1}, "timeout"},
		"two ways":            {Options{URL: ok, BearerTokenFile: "f", BasicAuth: BasicAuth{"a", "b"}}, "exclude"},
		"half":                {Options{URL: ok, BasicAuth: BasicAuth{Username: "a"}}, "belong together"},
		"other half":          {Options{URL: ok, BasicAuth: BasicAuth{PasswordFile: "a"}}, "belong together"},
		"tenants":             {Options{URL: ok, Tenant: "a|b"}, "one tenant"},
		"tenant of two lines": {Options{URL: ok, Tenant: "a\nb"}, "one tenant"},
		"secret in a header":  {Options{URL: ok, Headers: map[string]string{"authorization": "hunter2"}}, "bearer_token_file"},
		"protocol":            {Options{URL: ok, Headers: map[string]string{"Content-Type": "x"}}, "protocol"},
		"header's name":       {Options{URL: ok, Headers: map[string]string{"a b": "x"}}, "no name"},
		"header's value":      {Options{URL: ok, Headers: map[string]string{"a": "hunter2\r\nx"}}, "one line"},
		"tls":                 {Options{URL: ok, TLS: export.TLS{Cert: "x"}}, "cert and key"},
		"ca":                  {Options{URL: ok, TLS: export.TLS{CA: "/no/such/file"}}, "/no/such/file"},
	} {
		e, err := New(c.o)
		if err == nil {
			e.Close()
			t.Errorf("%s: was taken", name)
			continue
		}
		if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConcurrent: several lanes may send at once.
func TestConcurrent(t *testing.T) {
	both(t, func(t *testing.T, api string) {
		s := fake.Start(t, fake.Options{})
		e := newExporter(t, Options{URL: s.URL(), API: api})
		errs := make(chan error)
		at := time.Now()
		for pid := range 8 {
			go func() {
				for i := range 5 {
					m := newMaker("heap", at.Add(time.Duration(i)*time.Second))
					m.add("f;main", 1)
					p := m.profile("heap")
					p.PID, p.Labels = pid+1, nil
					errs <- e.Export(t.Context(), p)
				}
			}()
		}
		for range 40 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if got := s.Sum("inuse_objects", true); got != 3*40 {
			t.Errorf("%d objects, not %d", got, 3*40)
		}
	})
}
