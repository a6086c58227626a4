package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// keyring signs all of Debian's suites; package debian-archive-keyring.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// suites of Debian that hold kernels, by archive. They are asked for at the place where the host has its own from.
var archives = [][]string{
	{"bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid", "experimental"},
	{"bullseye-security", "bookworm-security", "trixie-security"},
}

// apt runs apt with sources and package lists of its own in dir, so that nothing has to be added to the host, and root
// is not needed.
type apt struct{ dir, arch string }

// openAPT gets the package lists. A suite that is no longer in the archive is told and left out.
func openAPT(ctx context.Context, dir, arch string, tell func(string, ...any)) (*apt, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	a := &apt{dir, arch}
	targets, err := output(ctx, dir, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	list := sources(targets)
	if list == "" {
		return nil, errors.New("the host has no package sources of Debian")
	}
	status := filepath.Join(dir, "state", "status") // nothing is installed
	if err := errors.Join(os.WriteFile(a.sources(), []byte(list), 0o644), os.WriteFile(status, nil, 0o644)); err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, "apt-get", "update"); err != nil {
		tell("== some suites are not to be had: %v\n", err)
	}
	return a, nil
}

// sources turns the host's own, lines of a repository's address and a suite, into those of all suites.
func sources(targets string) string {
	var list strings.Builder
	for _, archive := range archives {
		for line := range strings.Lines(targets) {
			uri, suite, _ := strings.Cut(strings.TrimSpace(line), " ")
			if !slices.Contains(archive, suite) {
				continue
			}
			for _, suite := range archive {
				fmt.Fprintf(&list, "deb [signed-by=%s] %s %s main\n", keyring, uri, suite)
			}
			break
		}
	}
	return list.String()
}

func (a *apt) sources() string { return filepath.Join(a.dir, "sources.list") }

func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	return output(ctx, a.dir, name, append([]string{
		"-o", "APT::Architecture=" + a.arch,
		"-o", "APT::Architectures=" + a.arch,
		"-o", "APT::Sandbox::User=",
		"-o", "Dir::Etc::sourcelist=" + a.sources(),
		"-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State=" + filepath.Join(a.dir, "state"),
		"-o", "Dir::State::status=" + filepath.Join(a.dir, "state", "status"),
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
	}, args...)...)
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[len(args)-1], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// kernels is what apt-cache show prints of all packages that may be kernels.
func (a *apt) kernels(ctx context.Context) (string, error) {
	names, err := a.run(ctx, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return "", err
	}
	matching := slices.DeleteFunc(strings.Fields(names), func(name string) bool { return !imageName.MatchString(name) })
	if len(matching) == 0 {
		return "", errors.New("no kernel in the archive's lists")
	}
	return a.run(ctx, "apt-cache", append([]string{"show", "--no-all-versions"}, matching...)...)
}

// unpack downloads a package and returns the directory of its files, which is gone with the next.
func (a *apt) unpack(ctx context.Context, name string) (string, error) {
	dir := filepath.Join(a.dir, "unpacked")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if _, err := a.run(ctx, "apt-get", "download", name); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(a.dir, name+"_*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages, want 1", len(debs))
	}
	_, err := output(ctx, a.dir, "dpkg-deb", "-x", debs[0], dir)
	return dir, errors.Join(err, os.Remove(debs[0]))
}

// unpackAll downloads packages of a suite with all that they depend on, and unpacks them into dir.
func (a *apt) unpackAll(ctx context.Context, dir, suite string, names []string) error {
	args := []string{"-o", "APT::Default-Release=" + suite, "-o", "APT::Install-Recommends=false",
		"-o", "Debug::NoLocking=true", "install", "-y", "--download-only"}
	if _, err := a.run(ctx, "apt-get", append(args, names...)...); err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(a.dir, "cache", "archives", "*.deb"))
	for _, deb := range debs {
		if _, err := output(ctx, a.dir, "dpkg-deb", "-x", deb, dir); err != nil {
			return err
		}
	}
	return nil
}
