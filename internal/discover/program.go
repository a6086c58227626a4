package discover

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	goversion "go/version"
	"runtime"
	"strconv"
	"strings"
	"unicode"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
)

// Program is what an executable says of itself. All processes that run the file share it: read only.
type Program struct {
	GoVersion string // "go1.26.8"; "" where it is a Go program without build information
	Module    string // path of the main module, else of the main package
	Package   string // path of the main package
	Version   string // of the main module: "v1.2.3", "(devel)"
	Revision  string // VCS revision, see Revision

	PIE, Stripped, Cgo bool
	Obstacle           string // why it cannot be profiled; "" if it can

	err  error  // it is no Go program (objfile.ErrNotGo), or cannot be looked at
	what string // but this; only where err is objfile.ErrNotGo
	bare bool   // err is of the file; a process that runs it may have unpacked something else
}

// goes says whether it is a Go program.
func (p *Program) goes() bool { return p.err == nil }

// notGo says that it is none, whatever the process does.
func (p *Program) notGo() bool { return errors.Is(p.err, objfile.ErrNotGo) && !p.bare }

// readProgram describes the executable of a process.
func readProgram(proc procfs.Proc) (*Program, error) {
	f, err := objfile.OpenExe(proc)
	switch {
	case err == nil:
	case errors.Is(err, objfile.ErrTooCostly):
		return &Program{err: err}, nil
	case errors.Is(err, objfile.ErrNotGo), errors.Is(err, objfile.ErrUnsupported):
		return &Program{err: fmt.Errorf("%w: %w", objfile.ErrNotGo, err), what: firstLine(err)}, nil
	default: // it says nothing of the file, but of our right to look at it
		return nil, err
	}
	defer f.Close()
	return examine(f), nil
}

func examine(f *objfile.File) *Program {
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
		return &Program{err: err}
	}
	why := strings.TrimSuffix(firstLine(err), ": "+objfile.ErrNotGo.Error())
	return &Program{err: err, what: "an ELF executable without Go's tables: " + why, bare: f.Bare()}
}

func describe(f *objfile.File, bi *buildinfo.BuildInfo) *Program {
	p := &Program{
		GoVersion: bi.GoVersion,
		Module:    bi.Main.Path,
		Package:   bi.Path,
		Version:   bi.Main.Version,
		Revision:  Revision(bi),
		PIE:       f.PIE(), Stripped: f.Stripped(), Cgo: f.Cgo(),
	}
	if p.Module == "" {
		p.Module = bi.Path
	}
	p.Obstacle = obstacle(f, bi.GoVersion)
	return p
}

// unpacked describes the Go program that a process has unpacked into its memory, if there is one; else file, what its
// executable says.
func unpacked(root string, pid int, file *Program) *Program {
	space, err := objfile.OpenSpace(objfile.NewImages(), root, pid)
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

// Revision is the VCS revision of a program, cut to 12 characters, with "+dirty" where the tree was modified; "" if unknown.
func Revision(bi *buildinfo.BuildInfo) string {
	var rev, dirty string
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if rev == "" {
		return ""
	}
	return rev + dirty
}

// Printable makes text that a process chose safe for a terminal and a table: it may hold escape sequences.
func Printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 && !strings.ContainsRune(s, unicode.ReplacementChar) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
