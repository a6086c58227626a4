// Command kerneltest runs tests of this module on Debian's own kernels, in virtual machines:
//
//	go run ./internal/kerneltest [-arch amd64,arm64] [-kernels 6.1,6.12-rt] [-short] [-run regexp] [-o file] [package ...]
//	go run ./internal/kerneltest -state out/kernels.json -o file -kernels 7.3   # beside what earlier runs found
//	go run ./internal/kerneltest -systemd -arch amd64 -kernels 6.1   # make test-systemd; -suspend 10m
//	go run ./internal/kerneltest -list
//	go run ./internal/kerneltest -kernel vmlinuz[,vmlinuz] ...
//
// It works in six steps, for each architecture and kernel:
//
//  1. a kernel: the newest package of each series that Debian's archive offers, by apt-get download with package
//     lists of our own (apt.go), kept below -cache (kernel.go). Nothing is installed, and root is not needed. Remove the
//     cache to get newer kernels.
//  2. what runs there: static test binaries, an init, pprofd, and the programs that tests profile (build.go). Which
//     packages are tested, how, on which kernels, is decided in suite.go alone.
//  3. an initramfs of these (initramfs.go), and of Debian's C library, for programs that want a loader. With -systemd it holds
//     Debian's systemd, which boots and runs our init as a service (systemd.go).
//  4. qemu, by TCG, until the machine is off or -timeout is over (vm.go).
//  5. the console: tests' output is passed on, init's own lines tell what ended how (report.go).
//  6. a table of all machines: what passed, what was measured, what pprofd doctor found missing there (table.go).
//
// The exit status is 0 if each machine ran all its jobs, each job succeeded and had at least one test that passed.
//
// Tests find prebuilt programs in $PPROFD_TARGETS_DIR, as <build options>/<name>, since there is no go command
// in the machine. PPROFD_REQUIRE=root,bpf turns skips for lack of these into failures (package needs). What a test wants
// in the table it says by t.Attr, with a key that begins with "pprofd.".
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
	"slices"
	"strings"
	"syscall"
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
	kernels []string // names of Debian's
	files   []string // to boot in place of Debian's
	cache   string   // directory for kernels and package lists
	table   string   // file to write the table to
	state   string   // file with the results of earlier runs, and of this one
	run     string   // regexp of tests, for all packages
	pkgs    []string
	list    bool
	short   bool
	systemd bool
	timeout time.Duration
	suspend time.Duration // how long a test suspends the machine; 0: as long as it likes
	out     func(format string, args ...any)
	results []*result           // so far
	offered map[string][]kernel // by Debian's archive, by architecture
}

func parse(args []string) (c *config, err error) {
	c = &config{}
	fs := flag.NewFlagSet("kerneltest", flag.ContinueOnError)
	archs := fs.String("arch", "amd64,arm64", "comma-separated `architectures`")
	kernels := fs.String("kernels", "", "comma-separated `names` of Debian's kernels, as -list has them "+
		"(default: each series, and of the newest each variant; with -short "+base+")")
	files := fs.String("kernel", "", "comma-separated `files` to boot in place of Debian's kernels")
	fs.BoolVar(&c.list, "list", false, "only list the kernels that Debian's archive offers")
	fs.StringVar(&c.cache, "cache", filepath.Join("out", "kernels"), "`directory` to keep kernels in")
	fs.StringVar(&c.table, "o", "", "write the table of results to this `file`, too")
	fs.StringVar(&c.state, "state", "", "`file` to keep results in: those of earlier runs on other kernels stand in the table, too")
	fs.StringVar(&c.run, "run", "", "`regexp` of the tests to run, in place of the suite's")
	fs.BoolVar(&c.short, "short", false, "only the quick part of the suite, with -test.short")
	fs.BoolVar(&c.systemd, "systemd", false, "boot Debian's systemd, and run the tests that need it, only")
	fs.DurationVar(&c.timeout, "timeout", 15*time.Minute, "how long one machine may run, on the host's architecture; three times as long on the other")
	fs.DurationVar(&c.suspend, "suspend", 0, "with -systemd: how long the machine is suspended (default 20s)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if c.cache, err = filepath.Abs(c.cache); err != nil {
		return nil, fmt.Errorf("kernel cache: %w", err)
	}
	c.archs, c.kernels, c.files, c.pkgs = words(*archs), words(*kernels), words(*files), fs.Args()
	return c, nil
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func run(out io.Writer, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := parse(args)
	if err != nil {
		return err
	}
	c.out = func(format string, args ...any) { fmt.Fprintf(out, format, args...) }
	if err := c.load(); err != nil {
		return err
	}
	suites, err := choose(allSuites(), c)
	if err != nil {
		return err
	}
	var failed []error
	for _, arch := range c.archs {
		failed = append(failed, c.runOn(ctx, out, arch, suites))
	}
	if len(c.results) > 0 {
		fmt.Fprintf(out, "\n%s", table(ctx, c.results, c.offered))
	}
	return errors.Join(failed...)
}

// runOn runs the suites on all chosen kernels of one architecture.
func (c *config) runOn(ctx context.Context, out io.Writer, arch string, suites []suite) error {
	m, err := machineFor(arch)
	if err != nil {
		return err
	}
	kernels, err := kernelsFor(ctx, c, arch)
	if err != nil {
		return err
	}
	if c.list {
		for _, k := range kernels {
			c.out("%s\t%s\t%s\t%s\n", arch, k.Name, k.Packages[0].Version, k.Packages[0].Name)
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "kerneltest")
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	defer os.RemoveAll(dir)
	b := &builder{dir: dir, arch: arch, short: c.short, suspend: c.suspend, suites: suites}
	switch st := c.store(arch); {
	case c.systemd:
		b.systemd, err = st.systemd(ctx)
	case slices.ContainsFunc(suites, func(s suite) bool { return len(s.pie)+len(s.cgo) > 0 }):
		b.libc, err = st.libc(ctx)
	}
	if err != nil {
		return err
	}
	var failed []error
	for _, k := range kernels {
		r, err := c.boot(ctx, out, m, b, k)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s, %s: %w", k.Name, arch, err))
		}
		c.add(r)
		failed = append(failed, c.save(ctx))
	}
	return errors.Join(failed...)
}

// maxBoots is how often a kernel is tried that a bug of the emulator brings down.
const maxBoots = 3

// boot runs one machine, and another one if the emulator was at fault.
func (c *config) boot(ctx context.Context, out io.Writer, m *machine, b *builder, k kernel) (*result, error) {
	commit := said(ctx, "git", "describe", "--always", "--dirty")
	for n := 1; ; n++ {
		r := &result{Arch: b.arch, Kernel: k, Commit: commit}
		p, err := c.once(ctx, out, m, b, r)
		if n > 1 {
			r.Note = fmt.Sprintf("run %d times: a bug of the emulator brought the machine down before (a breakpoint of the kernel's that was gone)", n)
		}
		if p == nil || !p.emulatorFault() || n == maxBoots {
			return r, err
		}
		fmt.Fprintf(out, "== once more: %v\n", err)
	}
}

// once runs a machine to its end. There is no report if it did not come to a start.
func (c *config) once(ctx context.Context, out io.Writer, m *machine, b *builder, r *result) (p *report, err error) {
	suites := forKernel(b.suites, &r.Kernel, r.Arch)
	if len(suites) == 0 {
		return nil, errors.New("none of the tests is for this kernel")
	}
	start := time.Now()
	m.kernel = r.Kernel.file
	if m.initrd, err = b.initramfs(ctx, &r.Kernel, suites); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "== %s on %s: built in %v\n", filepath.Base(m.kernel), r.Arch, time.Since(start).Round(time.Second))
	ctx, cancel := context.WithTimeout(ctx, patience(r.Arch, c.timeout))
	defer cancel()
	p = newReport(out, len(suites), r)
	err = m.boot(ctx, p)
	r.Took = time.Since(start).Round(time.Second)
	fmt.Fprintf(out, "== %s on %s took %v in all\n", filepath.Base(m.kernel), r.Arch, r.Took)
	return p, errors.Join(err, p.finish())
}
