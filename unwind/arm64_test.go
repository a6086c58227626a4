//go:build linux

package unwind_test

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/gopclntab"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/objfile"
	"github.com/pprofd/pprofd/unwind"
)

// TestEveryInstructionARM64 follows the machine code of every function of an arm64 program along its branches, keeping
// account of SP, frame pointer, link register and what was saved on the stack, and has the stack completed at every
// instruction. It needs no arm64 machine, and nothing of it comes from the pc tables.
func TestEveryInstructionARM64(t *testing.T) {
	for _, version := range testprog.Versions() {
		t.Run("go"+version, func(t *testing.T) {
			p := openARM64(t, testprog.Build(t, "step", testprog.Options{Go: version, Arch: "arm64"}))
			for entry := p.text.Addr; entry < p.text.Addr+p.text.Size; {
				f, ok := p.table.Find(entry)
				if !ok { // padding
					entry += 4
					continue
				}
				p.function(f)
				entry = max(entry+4, (f.End+3)&^3)
			}
			t.Logf("%d functions, %d of %d instructions, %d wrong; not judged: %v", p.functions, p.all, p.text.Size/4, p.bad, top(p.skipped))
			if uint64(p.all)*4 < p.text.Size*9/10 {
				t.Errorf("only %d of %d instructions were reached", p.all, p.text.Size/4)
			}
			if p.bad > 0 {
				t.Errorf("%d stacks are wrong, in %v", p.bad, top(p.wrong))
			}
		})
	}
}

// TestSignedReturnAddresses: C code and the vDSO sign the return addresses that they save, if the processor can.
func TestSignedReturnAddresses(t *testing.T) {
	p := openARM64(t, testprog.Build(t, "step", testprog.Options{Arch: "arm64"}))
	const signature = 0x2a << 48
	seg := newMachine(p, p.table.Lookup("main.once")["main.once"].Entry).segment(p)
	seg.LR |= signature
	for i := range seg.Frames {
		seg.Frames[i] |= signature
	}
	got, status := p.unwinder.Complete(nil, p.space, &unwind.Input{Segments: []unwind.Segment{seg}})
	if status != unwind.Complete || len(got) != 2 || got[1].Off != p.caller-1 {
		t.Errorf("stack %v, status %d; want the caller's address %#x", got, status, p.caller-1)
	}
}

// The stack that every function is entered with: it was called by caller, and that by runtime.goexit's start.
const stackTop = 0xc000100000

// program is an arm64 executable as if it ran.
type program struct {
	t          *testing.T
	text       *elf.Section
	code       []byte
	table      *gopclntab.Table
	space      *objfile.Space
	unwinder   *unwind.Unwinder
	caller     uint64 // a return address in a function with a frame
	bottom     uint64 // the return address in runtime.goexit
	poison     uint64 // a return address that no stack has
	got        []objfile.Addr
	functions  int
	all, bad   int
	wrong      map[string]int
	skipped    map[string]int
	growsStack map[uint64]bool // functions by entry
}

// noreturn are the functions behind whose calls there may be anything.
var noreturn = regexp.MustCompile(`\.(panic|goPanic|throw|fatal|abort|goexit[01]?$|gopanic|badmcall|badmorestack|morestackc$|block$)`)

func openARM64(t *testing.T, path string) *program {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &program{t: t, text: f.Section(".text"), wrong: map[string]int{}, skipped: map[string]int{},
		growsStack: map[uint64]bool{}}
	if p.code, err = p.text.Data(); err != nil {
		t.Fatal(err)
	}
	images := objfile.NewImages()
	if p.space, err = objfile.OpenSpace(images, mapped(t, path, p.text), 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.space.Close(); err != nil {
			t.Error(err)
		}
	})
	p.unwinder = unwind.New(images)
	if p.table, err = p.space.Main().Image.File.Pclntab(); err != nil {
		t.Fatal(err)
	}
	found := p.table.Lookup("main.main", "runtime.goexit", "runtime.main", "runtime.morestack", "runtime.morestack_noctxt")
	p.caller, p.poison = p.callIn(found["main.main"]), p.callIn(found["runtime.main"])
	p.bottom = found["runtime.goexit"].Entry + 4
	p.growsStack[found["runtime.morestack"].Entry] = true
	p.growsStack[found["runtime.morestack_noctxt"].Entry] = true
	return p
}

// mapped makes a /proc with one process, that has path mapped.
func mapped(t testing.TB, path string, text *elf.Section) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "1")
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	start, off := text.Addr&^0xfff, text.Offset&^0xfff
	end := (text.Addr + text.Size + 0xfff) &^ 0xfff
	maps := fmt.Sprintf("%x-%x r-xp %08x %02x:%02x %d %s\n", start, end, off, unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino, path)
	stat := "1 (step) S" + strings.Repeat(" 1", 49) + "\n"
	err := os.MkdirAll(filepath.Join(dir, "map_files"), 0o755)
	for name, data := range map[string]string{"maps": maps, "stat": stat} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644)
		}
	}
	for _, name := range []string{"exe", fmt.Sprintf("map_files/%x-%x", start, end)} {
		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// callIn returns where the first call in f returns to.
func (p *program) callIn(f gopclntab.Func) uint64 {
	for pc := f.Entry; pc < f.End; pc += 4 {
		if p.at(pc).isCall() {
			if delta, ok := f.SPDelta(pc + 4); ok && delta > 0 {
				return pc + 4
			}
		}
	}
	p.t.Fatalf("no call in %s", f.Name())
	return 0
}

func (p *program) at(pc uint64) insn {
	b := p.code[pc-p.text.Addr:]
	return insn(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

// function visits the instructions of f, each with the state in which it is first reached.
func (p *program) function(f gopclntab.Func) {
	name := f.Name()
	if f.End < f.Entry+4 || strings.HasPrefix(name, "go:") { // marks of the linker
		return
	}
	if f.Flags()&gopclntab.FlagSPWrite != 0 || slices.Contains(unlike, name) || tooLarge.MatchString(name) {
		p.skipped[name] = int(f.End-f.Entry) / 4
		return
	}
	p.functions++
	seen := make([]bool, (f.End-f.Entry)/4)
	todo := []*machine{newMachine(p, f.Entry)}
	for len(todo) > 0 {
		m := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for m.pc >= f.Entry && m.pc < f.End && !seen[(m.pc-f.Entry)/4] {
			seen[(m.pc-f.Entry)/4] = true
			p.judge(name, m)
			branch, falls := m.step(p)
			if branch != 0 {
				other := m.clone()
				other.pc = branch
				todo = append(todo, other)
			}
			if !falls {
				break
			}
			m.pc += 4
		}
	}
}

// unlike are functions that are not called, do not return, or end a stack, so that a caller of theirs says nothing.
var unlike = []string{"runtime.goexit", "runtime.mstart", "runtime.rt0_go", "runtime.clone", "runtime.asyncPreempt", "runtime.sigpanic", "runtime.gogo", "runtime.sigreturn__sigaction", "runtime.sigreturn",
	"_rt0_arm64_linux", "_rt0_arm64", "main", "runtime.sigtramp", "runtime.cgoSigtramp", "runtime.systemstack_switch",
	"main.channels", // of Go 1.18, where a branch that is never taken leads past the end into the code that grows the stack
}

// tooLarge are functions that need two instructions to free their frame. Up to Go 1.20 or so, the pc table is wrong about the second.
var tooLarge = regexp.MustCompile(`^runtime\.call(\d{5,})$`)

// judge has the stack at m completed.
func (p *program) judge(name string, m *machine) {
	p.all++
	in := unwind.Input{Segments: []unwind.Segment{m.segment(p)}}
	var status unwind.Status
	p.got, status = p.unwinder.Complete(p.got[:0], p.space, &in)
	want := []uint64{m.pc, p.caller - 1}
	right := status == unwind.Complete && slices.EqualFunc(p.got, want, func(a objfile.Addr, pc uint64) bool { return a.Off == pc })
	if right {
		return
	}
	p.bad++
	if p.wrong[name]++; p.wrong[name] == 1 && len(p.wrong) < 10 {
		var got []string
		for _, a := range p.got {
			f, _ := p.table.Find(a.Off)
			got = append(got, fmt.Sprintf("%s+%#x", f.Name(), a.Off-f.Entry))
		}
		f, _ := p.table.Find(m.pc)
		delta, _ := f.SPDelta(m.pc)
		p.t.Logf("%s+%#x (%08x): got %v, status %d; SP %d below the caller's, pc table says %d", name, m.pc-f.Entry, uint32(p.at(m.pc)), got, status,
			stackTop-int64(m.regs[sp].v), delta)
	}
}
