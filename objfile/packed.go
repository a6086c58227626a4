package objfile

import (
	"debug/elf"
	"runtime"
	"time"

	"github.com/pprofd/pprofd/internal/procfs"
)

const (
	// clusterGap is the largest hole between two ranges that are taken for one image.
	clusterGap = 64 << 20
	// maxPackedRange bounds one range that is searched.
	maxPackedRange = 1 << 30
)

// Bare reports that a file says of itself only what the kernel needs, as packers leave it: the program may be known no
// sooner than in the memory of a process that runs it. See OpenSpace.
func (f *File) Bare() bool { return f.sections == nil }

// findPacked looks for a Go program in anonymous executable memory: a packed executable (whose own
// file has no section headers) unpacks itself there. The image of that memory then gets a File,
// which reads the process.
func (s *Space) findPacked() {
	anon := s.owned[mapKey{path: pathAnon}]
	if anon == nil || anon.File != nil || s.spent > maxSearchTime || !s.maybePacked() {
		return
	}
	start := time.Now()
	defer func() { s.spent += time.Since(start) }()
	for _, cluster := range s.clusters() {
		f, err := OpenMemory(s.mem, cluster, s.machine())
		if err != nil {
			continue
		}
		mod, err := f.GoModule()
		if err != nil {
			continue
		}
		if m := s.Mapping(mod.Text); m != nil && m.Image == anon {
			anon.File, anon.Err = f, nil
			return
		}
	}
}

// maybePacked says that the executable's file tells nothing: it could not be read, or has no
// section headers. The memory of others is not searched: programs with run-time compilers would be slow to look at.
func (s *Space) maybePacked() bool {
	if s.exe == nil || s.exe.File == nil {
		return true
	}
	if !s.exe.File.Bare() {
		return false
	}
	_, err := s.exe.File.GoModule()
	return err != nil
}

func (s *Space) machine() elf.Machine {
	switch {
	case s.exe != nil && s.exe.File != nil:
		return s.exe.File.machine
	case runtime.GOARCH == "arm64":
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

// clusters are the process's readable ranges around anonymous executable ones, as segments.
func (s *Space) clusters() [][]elf.ProgHeader {
	var all [][]elf.ProgHeader
	var cur []elf.ProgHeader
	var end uint64
	wanted := false
	flush := func() {
		if wanted && len(cur) <= maxProgs {
			all = append(all, cur)
		}
		cur, wanted = nil, false
	}
	for m, err := range s.proc.Maps() {
		if err != nil {
			break
		}
		if m.Perm&procfs.PermRead == 0 || m.Start >= kernelSpace || m.End-m.Start > maxPackedRange || len(m.Path) > 2 && m.Path[:2] == "[v" {
			continue
		}
		if m.Start-end > clusterGap {
			flush()
		}
		end = m.End
		wanted = wanted || m.Perm&procfs.PermExec != 0 && !m.IsFile()
		if len(cur) <= maxProgs {
			cur = append(cur, elf.ProgHeader{Vaddr: m.Start, Memsz: m.End - m.Start, Flags: progFlags(m.Perm)})
		}
	}
	flush()
	return all
}

func progFlags(p procfs.Perm) elf.ProgFlag {
	flags := elf.PF_R
	if p&procfs.PermWrite != 0 {
		flags |= elf.PF_W
	}
	if p&procfs.PermExec != 0 {
		flags |= elf.PF_X
	}
	return flags
}
