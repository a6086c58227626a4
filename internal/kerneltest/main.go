// Command kerneltest runs tests of this module on Debian's own kernels, in virtual machines:
//
//	go run ./internal/kerneltest [-arch amd64,arm64] [-short] [-run regexp] [-kernel vmlinuz] [package ...]
//
// It works in five steps, for each architecture:
//
//  1. a kernel: Debian's newest 6.1 package, by apt-get download with package lists of our own, unpacked below -cache
//     (kernel.go). Nothing is installed, and root is not needed. Remove the cache to get a newer kernel.
//  2. what runs there: static test binaries, an init, and the programs that tests profile (build.go). Which packages
//     are tested, how, is decided in suite.go alone.
//  3. an initramfs of these (initramfs.go).
//  4. qemu, by TCG, until the machine is off or -timeout is over (vm.go).
//  5. the console: tests' output is passed on, init's own lines tell what ended how (report.go).
//
// The exit status is 0 if each machine ran all its jobs, each job succeeded and had at least one test that passed.
//
// Tests find prebuilt programs in $PPROFD_TARGETS_DIR, as <build options>/<name>, since there is no go command
// in the machine. PPROFD_REQUIRE=root,bpf turns skips for lack of these into failures (package needs).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "kerneltest:", err)
		os.Exit(1)
	}
}

type config struct {
	archs   []string
	cache   string // directory for kernels and package lists
	kernel  string // file to boot in place of Debian's
	run     string // regexp of tests, for all packages
	pkgs    []string
	short   bool
	timeout time.Duration
}

func parse(args []string) (*config, error) {
	c := &config{}
	fs := flag.NewFlagSet("kerneltest", flag.ContinueOnError)
	archs := fs.String("arch", "amd64,arm64", "comma-separated `architectures`")
	fs.StringVar(&c.cache, "cache", filepath.Join("out", "kernels"), "`directory` to keep kernels in")
	fs.StringVar(&c.kernel, "kernel", "", "kernel `file` to boot in place of Debian's 6.1")
	fs.StringVar(&c.run, "run", "", "`regexp` of the tests to run, in place of the suite's")
	fs.BoolVar(&c.short, "short", false, "only the quick part of the suite, with -test.short")
	fs.DurationVar(&c.timeout, "timeout", 15*time.Minute, "how long a machine may run")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	c.archs, c.pkgs = strings.Split(*archs, ","), fs.Args()
	return c, nil
}

func run(out io.Writer, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := parse(args)
	if err != nil {
		return err
	}
	suites, err := choose(allSuites(), c)
	if err != nil {
		return err
	}
	var failed []error
	for _, arch := range c.archs {
		if err := runOn(ctx, out, c, arch, suites); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", arch, err))
		}
	}
	return errors.Join(failed...)
}

func runOn(ctx context.Context, out io.Writer, c *config, arch string, suites []suite) error {
	m, err := machineFor(arch)
	if err != nil {
		return err
	}
	if m.kernel = c.kernel; m.kernel == "" {
		if m.kernel, err = debianKernel(ctx, c.cache, arch); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "kerneltest")
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	b := &builder{dir: dir, arch: arch, kernel: release(m.kernel), short: c.short}
	if m.initrd, err = b.initramfs(ctx, suites); err != nil {
		return err
	}
	fmt.Fprintf(out, "== %s on %s: built in %v\n", filepath.Base(m.kernel), arch, time.Since(start).Round(time.Second))
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r := newReport(out, len(suites))
	err = m.boot(ctx, r)
	fmt.Fprintf(out, "== %s took %v in all\n", arch, time.Since(start).Round(time.Second))
	return errors.Join(err, r.finish())
}

// release is what the name of a kernel's file says, as Debian names them.
func release(kernel string) string {
	if release, found := strings.CutPrefix(filepath.Base(kernel), "vmlinuz-"); found {
		return release
	}
	return "any"
}
