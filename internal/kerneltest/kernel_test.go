package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKernelIn(t *testing.T) {
	tests := map[string]struct{ depends, want string }{
		"bookworm":     {"linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n", "linux-image-6.1.0-56-cloud-amd64"},
		"trixie":       {"linux-image-cloud-amd64\n  Depends: linux-image-6.12.9-cloud-amd64\n", ""},
		"not a kernel": {"linux-image-cloud-amd64\n  Depends: linux-base\n", ""},
		"nothing":      {"", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, found := kernelIn(tt.depends); got != tt.want || found != (tt.want != "") {
				t.Errorf("kernelIn = %q, %t; want %q", got, found, tt.want)
			}
		})
	}
}

func TestAKernelInTheCacheIsNotDownloadedAgain(t *testing.T) {
	cache := t.TempDir()
	want := filepath.Join(cache, "amd64", "boot", "vmlinuz-6.1.0-1-cloud-amd64")
	if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "") // there is no apt
	if got, err := debianKernel(t.Context(), cache, "amd64"); err != nil || got != want {
		t.Errorf("debianKernel = %q, %v; want %q", got, err, want)
	}
	if got, err := debianKernel(t.Context(), cache, "arm64"); err == nil {
		t.Errorf("debianKernel for an architecture that is not cached = %q without apt", got)
	}
}

func TestRelease(t *testing.T) {
	for kernel, want := range map[string]string{"/k/boot/vmlinuz-6.1.0-56-cloud-arm64": "6.1.0-56-cloud-arm64", "/k/bzImage": "any"} {
		if got := release(kernel); got != want {
			t.Errorf("release(%s) = %q, want %q", kernel, got, want)
		}
	}
}
