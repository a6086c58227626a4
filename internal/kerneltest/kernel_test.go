package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// show is what apt-cache show prints of the archive in November 2026, shortened.
const show = `Package: linux-image-6.1.0-47-cloud-amd64
Version: 6.1.170-3
Depends: kmod, linux-base (>= 4.3~)
Description-en: Linux 6.1 for x86-64 cloud
 Not a field: Package: nonsense

Package: linux-image-6.1.0-56-cloud-amd64
Version: 6.1.192-2
Depends: kmod, linux-base (>= 4.3~)

Package: linux-image-6.1.0-56-amd64
Version: 6.1.192-2
Depends: kmod

Package: linux-image-6.12-cloud-amd64
Version: 6.12.117-1~deb12u1
Depends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)

Package: linux-image-6.12.117+deb12-rt-amd64
Version: 6.12.117-1~deb12u1

Package: linux-image-6.12.117+deb12-arm64-16k
Version: 6.12.117-1~deb12u1

Package: linux-image-7.3-cloud-amd64
Version: 7.3~rc7-1~exp1
Depends: linux-base-7.3-cloud-amd64 (= 7.3~rc7-1~exp1), linux-binary-7.3-cloud-amd64 (= 7.3~rc7-1~exp1)

Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-cloud-amd64

Package: linux-image-7.3.4+deb13-cloud-amd64-unsigned
Version: 7.3.4-1~bpo13+1
`

func TestParseOffered(t *testing.T) {
	want := []kernel{
		{Name: "6.1", Packages: []pkg{{"linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"}, {"linux-image-6.1.0-47-cloud-amd64", "6.1.170-3"}}},
		{Name: "6.12-16k", Packages: []pkg{{"linux-image-6.12.117+deb12-arm64-16k", "6.12.117-1~deb12u1"}}},
		{Name: "6.12-rt", Packages: []pkg{{"linux-image-6.12.117+deb12-rt-amd64", "6.12.117-1~deb12u1"}}},
		{Name: "7.3", Packages: []pkg{{"linux-binary-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"}, {"linux-binary-7.3-cloud-amd64", "7.3~rc7-1~exp1"}}},
	}
	if diff := cmp.Diff(want, parseOffered(show), cmp.AllowUnexported(kernel{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPick(t *testing.T) {
	var offered []kernel
	for _, name := range []string{"5.10", "5.10-rt", "6.1", "6.1-rt", "7.3", "7.3-16k", "7.3-rt"} {
		offered = append(offered, kernel{Name: name})
	}
	for name, tt := range map[string]struct {
		names []string
		short bool
		want  string
	}{
		"each series, and of the newest each variant": {nil, false, "5.10, 6.1, 7.3, 7.3-16k, 7.3-rt"},
		"the base":               {nil, true, "6.1"},
		"by name":                {[]string{"7.3", "6.1-rt"}, false, "7.3, 6.1-rt"},
		"by name, also if short": {[]string{"7.3"}, true, "7.3"},
		"one that is not there":  {[]string{"6.2"}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := pick(offered, tt.names, tt.short)
			if namesOf(got) != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("picked %q, %v; want %q", namesOf(got), err, tt.want)
			}
		})
	}
}

func TestSources(t *testing.T) {
	got := sources("http://m/debian/ bookworm\nhttp://m/debian/ bookworm-updates\nhttp://s/debian-security/ bookworm-security\n")
	for _, want := range []string{" http://m/debian/ trixie main\n", " http://m/debian/ bullseye main\n", " http://s/debian-security/ trixie-security main\n"} {
		if !strings.Contains(got, want) || strings.Count(got, want) != 1 {
			t.Errorf("no or several lines with %q in\n%s", want, got)
		}
	}
	if got := sources("http://m/ubuntu jammy\n"); got != "" {
		t.Errorf("sources of another distribution: %s", got)
	}
}

func TestSupported(t *testing.T) {
	for file, want := range map[string]bool{
		"vmlinuz-5.10.0-46-cloud-amd64": false, "vmlinuz-5.13.0-52-generic": false, "vmlinuz-5.15.0-204-generic": true,
		"vmlinuz-6.1.0-56-cloud-amd64": true, "vmlinuz-7.3.4+deb13-rt-arm64": true, "bzImage": true,
	} {
		k := kernel{file: "/boot/" + file}
		if k.supported() != want {
			t.Errorf("%s: supported is %t", file, !want)
		}
	}
}

func TestAKernelInTheCacheIsNotDownloadedAgain(t *testing.T) {
	c := &config{cache: t.TempDir(), kernels: []string{"6.1"}, out: t.Logf}
	dir := filepath.Join(c.cache, "amd64")
	want := filepath.Join(dir, "6.1", "vmlinuz-6.1.0-1-cloud-amd64")
	list := `[{"Name": "6.1", "Packages": [{"Name": "a", "Version": "6.1.1"}]}, {"Name": "6.12", "Packages": [{"Name": "b", "Version": "6.12.1"}]}]`
	write(t, want, "")
	write(t, filepath.Join(dir, "kernels.json"), list)
	t.Setenv("PATH", "") // there is no apt
	got, err := kernelsFor(t.Context(), c, "amd64")
	if err != nil || len(got) != 1 || got[0].file != want || got[0].release() != "6.1.0-1-cloud-amd64" {
		t.Errorf("kernels %v, %v; want %s", got, err, want)
	}
	for _, name := range []string{"6.12", "6.2"} { // one that is not in the cache, one that is not offered
		c.kernels = []string{name}
		if got, err := kernelsFor(t.Context(), c, "amd64"); err == nil {
			t.Errorf("kernels %v for %s without apt", got, name)
		}
	}
	if got, err := kernelsFor(t.Context(), c, "arm64"); err == nil {
		t.Errorf("kernels %v for an architecture without a list, without apt", got)
	}
}

func TestCopyBootFile(t *testing.T) {
	for file, want := range map[string]string{
		"boot/vmlinuz-6.1.0-56-cloud-amd64":                  "vmlinuz-6.1.0-56-cloud-amd64",
		"usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz":    "vmlinuz-7.3.4+deb13-cloud-amd64",
		"usr/share/doc/linux-image-6.1.0-56-cloud/changelog": "",
	} {
		unpacked, dst := t.TempDir(), filepath.Join(t.TempDir(), "kernel")
		write(t, filepath.Join(unpacked, file), "bytes")
		err := copyBootFile(dst, unpacked)
		got := bootFile(dst)
		if (err == nil) != (want != "") || want != "" && filepath.Base(got) != want {
			t.Errorf("%s: copied to %q, %v; want %q", file, got, err, want)
		}
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestKernelsNamedByFile(t *testing.T) {
	c, err := parse([]string{"-kernel", "/k/boot/vmlinuz-6.1.0-56-cloud-arm64,/k/bzImage"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := kernelsFor(t.Context(), c, "arm64")
	if err != nil || len(got) != 2 {
		t.Fatalf("kernels %v, %v", got, err)
	}
	if got[0].release() != "6.1.0-56-cloud-arm64" || got[1].release() != "any" || got[0].isBase() {
		t.Errorf("releases %q and %q; everything is tested: %t", got[0].release(), got[1].release(), got[0].isBase())
	}
}
