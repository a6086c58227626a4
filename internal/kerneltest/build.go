package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/kerneltest/job"
	"github.com/pprofd/pprofd/internal/testprog"
)

// Where things are in the machine.
const (
	testsDir   = "/tests"
	sourcesDir = "/src" // packages' directories, with their testdata
	targetsDir = "/targets"
)

// builder compiles for the machine, to files in dir, and collects them.
type builder struct {
	suites    []suite
	dir, arch string
	kernel    *kernel // that will run
	short     bool
	suspend   time.Duration
	systemd   string // directory of a system whose init is systemd; "" where ours is the only program
	libc      string // directory of the C library and the loader; "": nothing needs them, or systemd has brought them
	root      tree
	compiled  map[string]string // files by name in the machine: they are the same for all kernels
}

// initramfs builds everything for the suites and returns the file of the initramfs.
func (b *builder) initramfs(ctx context.Context, k *kernel, suites []suite) (string, error) {
	b.kernel, b.root = k, tree{}
	if err := b.init(ctx); err != nil {
		return "", err
	}
	jobs := make([]job.Job, 0, len(suites))
	for _, s := range suites {
		if err := b.suite(ctx, &s); err != nil {
			return "", err
		}
		jobs = append(jobs, b.job(&s))
	}
	list, err := job.Encode(jobs)
	if err != nil {
		return "", fmt.Errorf("list of tests: %w", err)
	}
	b.root.addData(job.ListFile, list)
	return b.root.write(filepath.Join(b.dir, "initramfs.cpio"))
}

func (b *builder) init(ctx context.Context) error {
	name := "/init"
	if b.systemd != "" {
		name = job.InitFile
		if err := b.root.addSystemd(b.systemd); err != nil {
			return fmt.Errorf("systemd: %w", err)
		}
	}
	if b.libc != "" {
		for _, top := range []string{"lib", "lib64"} {
			if err := b.root.addTree("/"+top, filepath.Join(b.libc, top)); err != nil {
				return fmt.Errorf("libc: %w", err)
			}
		}
	}
	return b.compile(ctx, name, "build", "./internal/kerneltest/init")
}

func (b *builder) job(s *suite) job.Job {
	return job.Job{
		Name: s.title(),
		Path: s.binary(),
		Dir:  sourcesDir + "/" + s.dir(),
		Args: s.args(b.short),
		Env: []string{
			"PPROFD_KERNELTEST=" + b.kernel.release(),
			"PPROFD_REQUIRE=root,bpf",
			"PPROFD_TARGETS_DIR=" + targetsDir,
			"PPROFD_VERSIONS=" + strings.Join(b.toolchains(s), ","),
			"PPROFD_SUSPEND=" + b.suspend.String(),
		},
		Timeout: s.timeout,
	}
}

// toolchains are those that build the suite's programs.
func (b *builder) toolchains(s *suite) []string {
	return s.toolchains(b.arch, b.short || !b.kernel.isBase())
}

// dir is the package's, from the module's root.
func (s *suite) dir() string { return strings.TrimPrefix(s.pkg, "./") }

// binary is where the package's tests are in the machine.
func (s *suite) binary() string {
	name := testsDir + "/" + strings.ReplaceAll(s.dir(), "/", "-")
	if s.command {
		return name
	}
	return name + ".test"
}

func (b *builder) suite(ctx context.Context, s *suite) error {
	args := []string{"test", "-c", s.pkg}
	if s.command {
		args = []string{"build", s.pkg}
	}
	if err := b.compile(ctx, s.binary(), args...); err != nil {
		return err
	}
	for name, pkg := range s.programs {
		if err := b.compile(ctx, name, "build", pkg); err != nil {
			return err
		}
	}
	for name, file := range s.files {
		b.root.addFile(name, file)
	}
	src := sourcesDir + "/" + s.dir()
	b.root.addDir(src)
	if err := b.root.addTree(src+"/testdata", s.dir()+"/testdata"); err != nil {
		return fmt.Errorf("testdata of %s: %w", s.pkg, err)
	}
	for _, version := range b.toolchains(s) {
		if err := b.targets(s, version); err != nil {
			return err
		}
	}
	return nil
}

// targets adds the programs that a suite's tests profile, built by one toolchain.
func (b *builder) targets(s *suite, version string) error {
	withC := s.cgo
	if _, err := exec.LookPath(testprog.CC(b.arch)); err != nil {
		withC = nil
	}
	for _, set := range []struct {
		names []string
		o     testprog.Options
	}{
		{s.targets, testprog.Options{Go: version}},
		{s.stripped, testprog.Options{Go: version, Strip: true}},
		{s.pie, testprog.Options{Go: version, Strip: true, PIE: true}},
		{withC, testprog.Options{Go: version, Cgo: true}},
		{withC, testprog.Options{Go: version, Cgo: true, Strip: true, PIE: true}},
	} {
		for _, name := range set.names {
			if err := b.target(name, set.o); err != nil {
				return err
			}
		}
	}
	return nil
}

// target adds a program that tests profile, under the name by which a test in the machine asks for it.
func (b *builder) target(name string, o testprog.Options) error {
	dst := targetsDir + "/" + testprog.Prebuilt(name, o)
	o.Arch = b.arch
	file, err := testprog.BuildFile(name, o)
	if err != nil {
		return fmt.Errorf("program %s: %w", name, err)
	}
	b.root.addFile(dst, file)
	return nil
}

// compile adds what the go command makes as dst. Two suites, and two kernels, may want the same program.
func (b *builder) compile(ctx context.Context, dst string, args ...string) error {
	if file := b.compiled[dst]; file != "" {
		b.root.addFile(dst, file)
		return nil
	}
	file := filepath.Join(b.dir, filepath.FromSlash(dst))
	pkg := args[len(args)-1]
	args = append(args[:len(args)-1:len(args)-1], "-o", file, pkg)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("go test -c %s made no binary: does it have tests? %w", pkg, err)
	}
	if b.compiled == nil {
		b.compiled = map[string]string{}
	}
	b.compiled[dst] = file
	b.root.addFile(dst, file)
	return nil
}

// addTree adds the files and symbolic links of a directory of the host, if it is there.
func (t *tree) addTree(dst, dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := dst + filepath.ToSlash(strings.TrimPrefix(path, dir))
		switch d.Type() {
		case 0:
			t.addFile(name, path)
		case fs.ModeDir:
			t.addDir(name)
		case fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			t.addLink(name, to)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
