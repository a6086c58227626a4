package unwind

import (
	"debug/elf"
	"slices"

	"github.com/pprofd/pprofd/gopclntab"
	"github.com/pprofd/pprofd/objfile"
)

// role tells the functions apart that unwinding must know by name.
type role uint8

const (
	roleNone role = iota
	roleTop       // goexit, mstart, rt0_go: the bottom of a stack
	roleGoexit
	roleMcall
	roleMorestack
	roleSystemstack
	roleSystemstackSwitch
	roleAsmcgocall
	roleCgocallback
	roleCrosscall // C calls Go through it
	roleGogo
	roleClone
	roleSigtramp
	roleRestorer // a signal handler returns to it
	roleAsyncPreempt
	roleSigpanic
	roleClock    // calls into the vDSO on the g0 stack
	roleSchedule // picks another goroutine to run
)

// roles by function name; the names stand in all versions from Go 1.16 to 1.27 (runtime/asm_*.s, sys_linux_*.s).
var roles = map[string]role{
	"runtime.goexit": roleGoexit, "runtime.mstart": roleTop, "runtime.rt0_go": roleTop,
	"_rt0_amd64_linux": roleTop, "_rt0_amd64": roleTop, "_rt0_arm64_linux": roleTop, "runtime.clone": roleClone,
	"runtime.mcall":     roleMcall,
	"runtime.morestack": roleMorestack, "runtime.morestack_noctxt": roleMorestack,
	"runtime.systemstack": roleSystemstack, "runtime.systemstack_switch": roleSystemstackSwitch,
	"runtime.asmcgocall": roleAsmcgocall, "runtime.asmcgocall_no_g": roleAsmcgocall,
	"runtime.cgocallback": roleCgocallback, "crosscall2": roleCrosscall,
	"runtime.gogo": roleGogo, "gogo": roleGogo,
	"runtime.sigtramp": roleSigtramp, "runtime.cgoSigtramp": roleSigtramp,
	"runtime.sigreturn__sigaction": roleRestorer, "runtime.sigreturn": roleRestorer,
	"runtime.asyncPreempt": roleAsyncPreempt, "runtime.sigpanic": roleSigpanic,
	"runtime.nanotime1": roleClock, "runtime.walltime": roleClock, "time.now": roleClock, "runtime.vgetrandom1": roleClock,
	"runtime.schedule": roleSchedule,
}

type roleRange struct {
	start, end uint64
	role       role
}

// image is what the unwinder keeps of one mapped file.
type image struct {
	table  *gopclntab.Table // nil: not Go
	arm64  bool
	vdso   bool
	roles  []roleRange // by address
	lo, hi uint64      // covers all of roles
	spans  spans
}

// pcInfo is what is known of one program counter.
type pcInfo struct {
	delta   int32
	isGo    bool // the function is in the pc tables
	sound   bool // delta is known
	spWrite bool // the function switches stacks somewhere inside
	role    role
}

func (u *Unwinder) image(id objfile.ImageID) *image {
	last := &u.last[id%objfile.ImageID(len(u.last))]
	if last.image != nil && id == last.id {
		return last.image
	}
	im, ok := u.images[id]
	if !ok {
		im = newImage(u.table.Get(id))
		u.images[id] = im
	}
	last.image, last.id = im, id
	return im
}

func newImage(src *objfile.Image) *image {
	im := &image{}
	if src == nil {
		return im
	}
	im.vdso = src.Path == "[vdso]"
	if src.File == nil {
		return im
	}
	im.arm64 = src.File.Machine() == elf.EM_AARCH64
	if im.vdso {
		im.findRestorer(src.File)
	}
	t, err := src.File.Pclntab()
	if err != nil {
		return im
	}
	im.table = t
	if m, err := src.File.GoModule(); err == nil {
		im.spans.base = m.Text
	}
	names := make([]string, 0, len(roles))
	for name := range roles {
		names = append(names, name)
	}
	for name, f := range t.Lookup(names...) {
		if im.arm64 && name == "time.now" { // is Go code there, which calls walltime and nanotime1 (runtime/timestub.go)
			continue
		}
		im.roles = append(im.roles, roleRange{f.Entry, f.End, roles[name]})
	}
	slices.SortFunc(im.roles, func(a, b roleRange) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	if n := len(im.roles); n > 0 {
		im.lo, im.hi = im.roles[0].start, im.roles[n-1].end
	}
	return im
}

// restorerBytes covers the two instructions of __kernel_rt_sigreturn, and the address after its system call.
const restorerBytes = 16

// findRestorer finds to what signal handlers return on arm64 (arch/arm64/kernel/vdso/sigreturn.S). On amd64 it is the program's.
func (im *image) findRestorer(vdso *objfile.File) {
	if start, ok := vdso.SymbolAddr("__kernel_rt_sigreturn"); ok {
		im.lo, im.hi = start, start+restorerBytes
		im.roles = []roleRange{{im.lo, im.hi, roleRestorer}}
	}
}

// role of the function that covers off.
func (im *image) role(off uint64) role {
	if off < im.lo || off >= im.hi {
		return roleNone
	}
	for i := range im.roles {
		if r := &im.roles[i]; off >= r.start && off < r.end {
			return r.role
		}
	}
	return roleNone
}

// info looks a program counter up.
func (u *Unwinder) info(a objfile.Addr) pcInfo {
	r := &u.recent[u.recent.slot(a)]
	if r.addr == a {
		return r.info
	}
	im := u.image(a.Image)
	i, ok := im.spans.get(a.Off)
	if !ok {
		i = u.lookUp(im, a.Off)
	}
	r.addr, r.info = a, i
	return i
}

// Fetch touches what is known of the leaves of stacks that are to be completed next. The loops are short, so that the CPU fetches
// what a loop reads of memory at the same time, where Complete would wait for one after the other.
func (u *Unwinder) Fetch(leaves []objfile.Addr) {
	touched := 0
	for _, a := range leaves {
		touched += int(u.recent[u.recent.slot(a)].info.delta) + int(u.last[a.Image%objfile.ImageID(len(u.last))].id)
	}
	for _, a := range leaves {
		im := u.image(a.Image)
		touched += len(im.roles) + len(im.spans.list)
	}
	u.touched = touched
	for _, a := range leaves {
		r := &u.recent[u.recent.slot(a)]
		if r.addr == a {
			continue
		}
		if i, ok := u.image(a.Image).spans.get(a.Off); ok {
			r.addr, r.info = a, i
		}
	}
}

// lookUp looks up what no span covers, in the pc tables. Where all spans are too many together they start anew.
func (u *Unwinder) lookUp(im *image, off uint64) (i pcInfo) {
	if im.table == nil {
		i.role = im.role(off)
		return i
	}
	f, ok := im.table.Find(off)
	if !ok {
		return i
	}
	delta, start, end, ok := f.SPRange(off)
	if !ok {
		start, end = off, off+1
	}
	i = pcInfo{delta: delta, isGo: true, sound: ok, spWrite: f.Flags()&gopclntab.FlagSPWrite != 0, role: im.role(off)}
	if u.spans >= maxSpans {
		for _, im := range u.images {
			im.spans = spans{base: im.spans.base}
		}
		u.spans = 0
	}
	before := len(im.spans.list)
	im.spans.put(off, start, end, i)
	u.spans += len(im.spans.list) - before
	return i
}
