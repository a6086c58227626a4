package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// base is the series that all suites run on, and alone with -short: that of Debian bookworm.
const base = "6.1"

// oldest is the first Linux that has all that the BPF programs need: bpf_task_pt_regs, see bpf/features.go.
var oldest = number{5, 15, 0}

// number is a kernel's version. The patch is -1 where there is none yet: release candidates.
type number struct{ major, minor, patch int }

var numbers = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.(\d+))?`)

// parseNumber reads the beginning of a version of a package, or of a release.
func parseNumber(s string) (n number, ok bool) {
	m := numbers.FindStringSubmatch(s)
	if m == nil {
		return n, false
	}
	n.patch = -1
	for i, to := range []*int{&n.major, &n.minor, &n.patch} {
		if m[i+1] == "" {
			break
		}
		v, err := strconv.Atoi(m[i+1])
		if err != nil {
			return n, false
		}
		*to = v
	}
	return n, true
}

func (n number) compare(o number) int {
	return cmp.Or(cmp.Compare(n.major, o.major), cmp.Compare(n.minor, o.minor), cmp.Compare(n.patch, o.patch))
}

func (n number) series() string { return fmt.Sprintf("%d.%d", n.major, n.minor) }

// kernel is one that can be booted.
type kernel struct {
	Name     string // series, and variant if it is not the plain one: "6.12", "6.12-rt"; a file's base name for -kernel
	Packages []pkg  // Debian's that hold the boot file, the newest first; none for -kernel
	file     string // to boot
	alone    bool   // the only one that was named
}

type pkg struct{ Name, Version string }

// release is what the name of the boot file says, as Debian and Ubuntu name them.
func (k *kernel) release() string {
	if release, found := strings.CutPrefix(filepath.Base(k.file), "vmlinuz-"); found {
		return release
	}
	return "any"
}

// supported reports whether pprofd is meant to run there. A kernel that does not tell is.
func (k *kernel) supported() bool {
	n, ok := parseNumber(k.release())
	return !ok || n.compare(number{oldest.major, oldest.minor, -1}) >= 0
}

// isBase reports whether everything is to be tested on this kernel: on Debian's own, or on the only file that was named.
func (k *kernel) isBase() bool { return k.alone || k.Name == base }

// variant is what the name says besides the series.
func (k *kernel) variant() string { return strings.TrimPrefix(k.Name, seriesOf(k.Name)) }

func seriesOf(name string) string {
	n, _ := parseNumber(name)
	return n.series()
}

// kernelsFor returns the kernels that the command line asks for, each with its file in the cache.
func kernelsFor(ctx context.Context, c *config, arch string) ([]kernel, error) {
	if len(c.files) > 0 {
		var all []kernel
		for _, file := range c.files {
			all = append(all, kernel{Name: filepath.Base(file), file: file, alone: len(c.files) == 1})
		}
		return all, nil
	}
	s := c.store(arch)
	offered, err := s.offered(ctx)
	if err != nil {
		return nil, fmt.Errorf("list Debian's kernels for %s (or name a file with -kernel): %w", arch, err)
	}
	if c.list {
		return offered, nil
	}
	if c.offered == nil {
		c.offered = map[string][]kernel{}
	}
	c.offered[arch] = offered
	chosen, err := pick(offered, c.kernels, c.short)
	for i := range chosen {
		if err == nil {
			err = s.fetch(ctx, &chosen[i])
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kernels for %s: %w", arch, err)
	}
	return chosen, nil
}

// pick chooses by name. Without names it takes each series once, and of the newest each variant; base alone if short.
func pick(offered []kernel, names []string, short bool) ([]kernel, error) {
	if len(names) == 0 && short {
		names = []string{base}
	}
	if len(names) == 0 {
		newest := offered[len(offered)-1]
		return slices.DeleteFunc(slices.Clone(offered), func(k kernel) bool {
			return k.variant() != "" && seriesOf(k.Name) != seriesOf(newest.Name)
		}), nil
	}
	var chosen []kernel
	for _, name := range names {
		i := slices.IndexFunc(offered, func(k kernel) bool { return k.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%s is not offered: %s", name, namesOf(offered))
		}
		chosen = append(chosen, offered[i])
	}
	return chosen, nil
}

func namesOf(kernels []kernel) string {
	var names []string
	for _, k := range kernels {
		names = append(names, k.Name)
	}
	return strings.Join(names, ", ")
}

// imageName is how Debian names kernels: release, variant, architecture, page size. The cloud variant is small and is
// configured as the full one in all that matters here (BTF, BPF events, uprobes, tracefs), so that it is the plain one here.
var imageName = regexp.MustCompile(`^linux-image-\d\S*?-(cloud-|rt-|)(?:amd64|arm64)(-16k|)$`)

// parseOffered reads what apt-cache show prints: each series and variant, the oldest series first.
func parseOffered(show string) []kernel {
	packages := map[string][]pkg{}
	for paragraph := range strings.SplitSeq(show, "\n\n") {
		if name, p, ok := parsePackage(paragraph); ok {
			packages[name] = append(packages[name], p)
		}
	}
	all := make([]kernel, 0, len(packages))
	for name, list := range packages {
		slices.SortFunc(list, newestFirst)
		all = append(all, kernel{Name: name, Packages: list})
	}
	slices.SortFunc(all, func(a, b kernel) int {
		x, _ := parseNumber(a.Name)
		y, _ := parseNumber(b.Name)
		return cmp.Or(x.compare(y), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func newestFirst(a, b pkg) int {
	x, _ := parseNumber(a.Version)
	y, _ := parseNumber(b.Version)
	return cmp.Or(y.compare(x), cmp.Compare(b.Version, a.Version))
}

// parsePackage reads one package and names its kernel. Since 6.19 the boot file is in a package of its own; one that
// only depends on another kernel is none.
func parsePackage(paragraph string) (name string, p pkg, ok bool) {
	fields := map[string]string{}
	for line := range strings.Lines(paragraph) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ": "); found {
			fields[name] = value
		}
	}
	m := imageName.FindStringSubmatch(fields["Package"])
	n, versioned := parseNumber(fields["Version"])
	if m == nil || !versioned || m[1]+m[2] == "" {
		return "", p, false
	}
	p = pkg{fields["Package"], fields["Version"]}
	for dep := range strings.SplitSeq(fields["Depends"], ", ") {
		dep, _, _ = strings.Cut(dep, " ")
		switch {
		case strings.HasPrefix(dep, "linux-binary-"):
			p.Name = dep
		case strings.HasPrefix(dep, "linux-image-"):
			return "", p, false
		}
	}
	name = n.series() + m[2]
	if m[1] == "rt-" {
		name = n.series() + "-rt" + m[2]
	}
	return name, p, true
}

// store keeps what was downloaded for one architecture: the list of kernels, the boot file of each, systemd.
type store struct {
	dir, arch string
	out       func(format string, args ...any)
	apt       *apt // nil as long as nothing is needed from the archive
}

func (c *config) store(arch string) *store {
	return &store{dir: filepath.Join(c.cache, arch), arch: arch, out: c.out}
}

// offered are the kernels of Debian's archive, as they were when the list was made. Removing the cache makes it anew.
func (s *store) offered(ctx context.Context) ([]kernel, error) {
	list := filepath.Join(s.dir, "kernels.json")
	var all []kernel
	if data, err := os.ReadFile(list); err == nil {
		return all, json.Unmarshal(data, &all)
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	show, err := s.apt.kernels(ctx)
	if err != nil {
		return nil, err
	}
	if all = parseOffered(show); len(all) == 0 {
		return nil, errors.New("no kernel in the archive")
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return nil, err
	}
	return all, os.WriteFile(list, data, 0o644)
}

func (s *store) open(ctx context.Context) (err error) {
	if s.apt == nil {
		s.apt, err = openAPT(ctx, filepath.Join(s.dir, "apt"), s.arch, s.out)
	}
	return err
}

// fetch sets the kernel's file, downloading it if the cache has none.
func (s *store) fetch(ctx context.Context, k *kernel) error {
	dir := filepath.Join(s.dir, k.Name)
	if k.file = bootFile(dir); k.file != "" {
		return nil
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	var failed error
	for _, p := range k.Packages[:min(len(k.Packages), maxTries)] {
		err := s.download(ctx, dir, p)
		if err == nil {
			k.file = bootFile(dir)
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", p.Name, err))
	}
	return failed
}

// maxTries is after how many packages a kernel is given up: mirrors lack some that are in the list, of old kernels all but the last of those.
const maxTries = 12

func (s *store) download(ctx context.Context, dir string, p pkg) error {
	unpacked, err := s.apt.unpack(ctx, p.Name)
	if err != nil {
		return err
	}
	tmp := dir + ".tmp" // renamed, so that dir is never half there
	defer os.RemoveAll(tmp)
	if err := copyBootFile(tmp, unpacked); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

func bootFile(dir string) string {
	found, _ := filepath.Glob(filepath.Join(dir, "vmlinuz-*")) // the pattern is well-formed
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// copyBootFile finds the boot file of an unpacked package: in /boot, or beside the modules since 6.19.
func copyBootFile(dst, unpacked string) error {
	files, _ := filepath.Glob(filepath.Join(unpacked, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(unpacked, "usr", "lib", "modules", "*", "vmlinuz"))
	var name, file string
	switch {
	case len(files) == 1:
		name, file = filepath.Base(files[0]), files[0]
	case len(modules) == 1:
		name, file = "vmlinuz-"+filepath.Base(filepath.Dir(modules[0])), modules[0]
	default:
		return fmt.Errorf("%d boot files in the package, want 1", len(files)+len(modules))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dst, name), data, 0o644)
}
