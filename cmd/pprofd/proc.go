package main

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	goversion "go/version"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
)

const procRoot = "/proc"

var (
	errKernelThread = errors.New("not a Go program: a kernel thread")
	errZombie       = errors.New("has exited already (zombie)")
)

// process is a running Go program.
type process struct {
	PID     int
	UID     uint32
	Comm    string
	Exe     string // as the process sees it, without " (deleted)"
	Deleted bool   // or replaced: there is another file at Exe now, or none
	Args    []string
	*program
}

// program is what an executable says of itself. All processes that run the file share it.
type program struct {
	GoVersion, Module, Version, Revision string
	PIE, Stripped, Cgo                   bool
	Obstacle                             string // why it cannot be profiled; "" if it can
	err                                  error  // it is no Go program (objfile.ErrNotGo), or cannot be looked at
	what                                 string // but this; only where err is objfile.ErrNotGo
	bare                                 bool   // err is of the file; a process that runs it may have unpacked something else
}

// fileID names a file for as long as it is executed by somebody. The change time tells a file from one that was
// written over it.
type fileID struct {
	dev, ino uint64
	size     int64
	ctime    syscall.Timespec
}

// inspector looks at processes and remembers executables, since most machines run the same few many times.
// One goroutine at a time.
type inspector struct {
	root     string
	fs       procfs.FS
	programs map[fileID]*program
}

func newInspector(root string) *inspector {
	return &inspector{root: root, fs: procfs.New(root), programs: map[fileID]*program{}}
}

// census is the Go processes of the machine.
type census struct {
	found  []*process
	unread map[string]int // how many could not be looked at, by reason
}

// all looks at every process. Those that end meanwhile are left out.
func (in *inspector) all(ctx context.Context) (c census, err error) {
	pids, err := in.fs.PIDs()
	if err != nil {
		return census{}, err
	}
	c.unread = map[string]int{}
	for _, pid := range pids {
		if ctx.Err() != nil {
			return census{}, ctx.Err()
		}
		p, err := in.inspect(pid)
		switch {
		case err == nil:
			c.found = append(c.found, p)
		case errors.Is(err, objfile.ErrNotGo), errors.Is(err, errKernelThread):
		case gone(err):
		default:
			c.unread[reason(err)]++
		}
	}
	return c, nil
}

// gone says whether err is that of a process that has ended meanwhile.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, errZombie)
}

// inspect looks at one process. The error says what the process is where it is not Go (it wraps objfile.ErrNotGo or is
// errKernelThread), that it is gone (os.ErrNotExist), or that we may not look (os.ErrPermission).
func (in *inspector) inspect(pid int) (*process, error) {
	proc := in.fs.Proc(pid)
	stat, err := proc.Stat()
	if err != nil {
		return nil, err
	}
	p := &process{PID: pid, Comm: stat.Comm}
	if p.Exe, err = proc.Exe(); err != nil {
		return nil, withoutExe(proc, stat, err)
	}
	p.Exe, p.Deleted = strings.CutSuffix(p.Exe, " (deleted)")
	if p.program, err = in.programOf(proc.Path("exe")); err != nil {
		return nil, err
	}
	if p.bare {
		p.program = in.unpacked(pid, p.program)
	}
	if p.err != nil && !errors.Is(p.err, objfile.ErrNotGo) {
		return nil, fmt.Errorf("whether %s is a Go program could not be found out: %w", printable(p.Exe), p.err)
	}
	if p.err != nil {
		return nil, toldError{fmt.Sprintf("not a Go program: %s, %s", printable(p.Exe), p.what), p.err}
	}
	if p.Args, err = proc.Cmdline(); err != nil {
		return nil, err
	}
	status, err := proc.Status()
	p.UID = status.UID[1]
	return p, err
}

// unpacked describes the Go program that a process has unpacked into its memory, if there is one; else file, what its
// executable says.
func (in *inspector) unpacked(pid int, file *program) *program {
	space, err := objfile.OpenSpace(objfile.NewImages(), in.root, pid)
	if err != nil {
		return file
	}
	defer space.Close()
	main := space.Main()
	if main == nil {
		return file
	}
	bi, err := main.Image.File.BuildInfo()
	if err != nil {
		bi = &buildinfo.BuildInfo{}
	}
	return describe(main.Image.File, bi)
}

// withoutExe says what a process is that has no executable: the kernel answers ENOENT for its own threads, which have no
// command line either, and for zombies.
func withoutExe(proc procfs.Proc, stat procfs.Stat, err error) error {
	switch {
	case !errors.Is(err, os.ErrNotExist):
		return err
	case stat.State == 'Z' || stat.State == 'X':
		return errZombie
	case stat.PPID == 2 || proc.PID == 2:
		return errKernelThread
	}
	return err
}

// programOf describes the executable at path, a /proc/PID/exe, through which deleted files and those of other mount
// namespaces are reached.
func (in *inspector) programOf(path string) (*program, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: %w", path, objfile.ErrNotGo)
	}
	id := fileID{st.Dev, st.Ino, st.Size, st.Ctim}
	if p, ok := in.programs[id]; ok {
		return p, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := readProgram(file, info.Size())
	in.programs[id] = p
	return p, nil
}

// readProgram takes ownership of file.
func readProgram(file *os.File, size int64) *program {
	f, err := objfile.Open(file, size)
	if errors.Is(err, objfile.ErrTooCostly) {
		return &program{err: err}
	}
	if err != nil {
		return &program{err: fmt.Errorf("%w: %w", objfile.ErrNotGo, err), what: firstLine(err)}
	}
	defer f.Close()
	bi, err := f.BuildInfo()
	if err == nil {
		return describe(f, bi)
	}
	// No build information: some packers and linker scripts drop it. The tables alone are enough to profile.
	_, err = f.GoModule()
	switch {
	case err == nil:
		return describe(f, &buildinfo.BuildInfo{})
	case errors.Is(err, objfile.ErrTooCostly): // a limit of ours is no property of the program
		return &program{err: err}
	}
	why := strings.TrimSuffix(firstLine(err), ": "+objfile.ErrNotGo.Error())
	return &program{err: err, what: "an ELF executable without Go's tables: " + why, bare: f.Bare()}
}

func describe(f *objfile.File, bi *buildinfo.BuildInfo) *program {
	p := &program{
		GoVersion: bi.GoVersion,
		Module:    bi.Main.Path,
		Version:   bi.Main.Version,
		Revision:  revisionOf(bi),
		PIE:       f.PIE(), Stripped: f.Stripped(), Cgo: f.Cgo(),
	}
	if p.Module == "" {
		p.Module = bi.Path
	}
	p.Obstacle = obstacle(f, bi.GoVersion)
	return p
}

// obstacle is why a Go program cannot be profiled.
func obstacle(f *objfile.File, goVersion string) string {
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]; f.Machine() != want {
		return fmt.Sprintf("it is built for %v", f.Machine())
	}
	if lang := goLang(goVersion); lang != "" && goversion.Compare(lang, "go1.16") < 0 {
		return "Go before 1.16 is not supported"
	}
	if _, err := f.GoModule(); err != nil {
		return "its tables cannot be found: " + firstLine(err)
	}
	return ""
}

// goLang is "go1.26" of "go1.26.8", of "go1.26.8 X:loopvar" and of "devel go1.26-0123abcd Mon Nov 2"; "" where it is unknown.
func goLang(v string) string {
	for word := range strings.FieldsSeq(v) {
		word, _, _ = strings.Cut(word, "-")
		if lang := goversion.Lang(word); lang != "" {
			return lang
		}
	}
	return ""
}
