package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// series is the kernel that Debian bookworm has, and the oldest that pprofd is proven on.
const series = "6.1."

// debianKernel returns the boot file of Debian's newest cloud kernel for an architecture, downloading it if the
// cache has none. The cloud flavour is small and is configured as the full one in all that matters here:
// BTF, BPF events, uprobes, tracefs.
func debianKernel(ctx context.Context, cache, arch string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(cache, arch))
	if err != nil {
		return "", fmt.Errorf("kernel cache: %w", err)
	}
	if found := bootFiles(dir); len(found) > 0 {
		return found[len(found)-1], nil
	}
	if err := download(ctx, dir, arch); err != nil {
		return "", fmt.Errorf("get a Debian kernel for %s (or name one with -kernel): %w", arch, err)
	}
	found := bootFiles(dir)
	if len(found) == 0 {
		return "", fmt.Errorf("no boot/vmlinuz-%s* in Debian's kernel package for %s", series, arch)
	}
	return found[len(found)-1], nil
}

func bootFiles(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-"+series+"*")) // the pattern is well-formed
	return found
}

// download unpacks the package to a directory beside dir and renames, so that dir is never half there.
func download(ctx context.Context, dir, arch string) error {
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	a, err := newAPT(tmp, arch)
	if err != nil {
		return err
	}
	if _, err := a.run(ctx, "apt-get", "update"); err != nil {
		return err
	}
	name, err := a.kernelPackage(ctx, "linux-image-cloud-"+arch)
	if err != nil {
		return err
	}
	if _, err := a.run(ctx, "apt-get", "download", name); err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, name+"_*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages, want 1", name, len(debs))
	}
	if _, err := a.run(ctx, "dpkg-deb", "-x", debs[0], "unpacked"); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "unpacked", "boot"), filepath.Join(dir, "boot"))
}

// apt runs apt with package lists of its own in dir, from the host's sources, so that another architecture
// does not have to be added to the host and root is not needed.
type apt struct{ dir, arch string }

func newAPT(dir, arch string) (*apt, error) {
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	status := filepath.Join(dir, "state", "status") // nothing is installed
	return &apt{dir, arch}, os.WriteFile(status, nil, 0o644)
}

func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	if name != "dpkg-deb" {
		cmd.Args = append([]string{name,
			"-o", "APT::Architecture=" + a.arch,
			"-o", "APT::Architectures=" + a.arch,
			"-o", "APT::Sandbox::User=",
			"-o", "Dir::State=" + filepath.Join(a.dir, "state"),
			"-o", "Dir::State::status=" + filepath.Join(a.dir, "state", "status"),
			"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		}, args...)
	}
	cmd.Dir = a.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// kernelPackage asks which package the metapackage stands for now.
func (a *apt) kernelPackage(ctx context.Context, meta string) (string, error) {
	depends, err := a.run(ctx, "apt-cache", "depends", meta)
	if err != nil {
		return "", err
	}
	name, found := kernelIn(depends)
	if !found {
		return "", fmt.Errorf("%s is not a %s kernel here; this needs the package sources of Debian bookworm", meta, series)
	}
	return name, nil
}

// kernelIn finds the package in what apt-cache depends prints.
func kernelIn(depends string) (name string, found bool) {
	for line := range strings.Lines(depends) {
		name, found := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if found && strings.HasPrefix(name, "linux-image-"+series) {
			return name, true
		}
	}
	return "", false
}
