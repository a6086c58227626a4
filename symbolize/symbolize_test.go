package symbolize

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pprofd/pprofd/internal/testprog/needs"
	"github.com/pprofd/pprofd/objfile"
)

const testImage objfile.ImageID = 7

// images holds one image: the file.
func images(t *testing.T, name string) (Images, *objfile.File) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	of, err := objfile.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { of.Close() })
	im := &objfile.Image{ID: testImage, Path: name, File: of}
	return func(id objfile.ImageID) *objfile.Image {
		if id == testImage {
			return im
		}
		return nil
	}, of
}

// The runtime's own answers about this test binary.
func TestGoFramesEqualTheRuntimes(t *testing.T) {
	look, f := images(t, "/proc/self/exe")
	if f.PIE() {
		t.Skip("needs a test binary at fixed addresses (not -race, not -buildmode=pie)")
	}
	mod, err := f.GoModule()
	if err != nil {
		t.Fatal(err)
	}
	s := New(look, nil)
	checked, inlined, bad := 0, 0, 0
	for pc := mod.Text; pc < mod.EText && bad < 5; pc += 61 {
		want := runtimeFrames(uintptr(pc))
		if want == nil {
			continue
		}
		got := shown(s.AppendFrames(nil, objfile.Addr{Image: testImage, Off: pc}))
		checked++
		if len(want) > 1 {
			inlined++
		}
		if d := cmp.Diff(want, got); d != "" {
			bad++
			t.Errorf("%#x: -runtime +Frames:\n%s", pc, d)
		}
	}
	if checked < 5000 || inlined < 500 {
		t.Errorf("only %d addresses checked, %d of them inlined", checked, inlined)
	}
}

type frame struct {
	Func, File string
	Line       int
}

// runtimeFrames expands one pc. The second entry, which is no function, makes CallersFrames expand all
// of the first (runtime/symtab.go: Frames.Next).
func runtimeFrames(pc uintptr) (list []frame) {
	f := runtime.FuncForPC(pc)
	next := runtime.FuncForPC(pc + 1)
	if f == nil || next == nil || next.Entry() == pc+1 {
		return nil // CallersFrames does not subtract 1 from an entry
	}
	frames := runtime.CallersFrames([]uintptr{pc + 1, 1})
	for {
		f, more := frames.Next()
		if f.PC != 0 && f.Function != "" {
			list = append(list, frame{f.Function, f.File, f.Line})
		}
		if !more {
			return list
		}
	}
}

// shown is what the runtime would show: no inlined wrapper but as the innermost, generic names in short.
func shown(frames []Frame) (list []frame) {
	for i, f := range frames {
		if i > 0 && f.Wrapper {
			continue
		}
		list = append(list, frame{short(f.Func), f.File, f.Line})
	}
	return list
}

func short(name string) string {
	i, j := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']')
	if i < 0 || j < i {
		return name
	}
	return name[:i] + "[...]" + name[j+1:]
}

func generic[T any](v T) (pc uintptr, t T) {
	var pcs [1]uintptr
	runtime.Callers(1, pcs[:])
	return pcs[0] - 1, v
}

// runtime/pprof writes the whole name (runtime/symtab.go: runtime_FrameSymbolName).
func TestGenericNameIsWhole(t *testing.T) {
	look, f := images(t, "/proc/self/exe")
	if f.PIE() {
		t.Skip("needs a test binary at fixed addresses (not -race, not -buildmode=pie)")
	}
	pc, _ := generic(1)
	frames := New(look, nil).AppendFrames(nil, objfile.Addr{Image: testImage, Off: uint64(pc)})
	if len(frames) == 0 || !strings.HasSuffix(frames[0].Func, "symbolize.generic[go.shape.int]") || frames[0].StartLine == 0 {
		t.Errorf("%+v", frames)
	}
}

func TestNativeAndUnknown(t *testing.T) {
	gcc := needs.Tool(t, "gcc")
	dir := t.TempDir()
	src := filepath.Join(dir, "x.c")
	code := "int plain(int x){return x*3+1;}\nint _ZN5outer5innerEi(int x){return x*5+2;}\n"
	if err := os.WriteFile(src, []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(dir, "libx.so")
	if out, err := exec.CommandContext(t.Context(), gcc, "-x", "c", "-O1", "-shared", "-fPIC", "-o", lib, src).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	look, f := images(t, lib)
	s := New(look, nil)
	for symbol, want := range map[string]string{"plain": "plain", "_ZN5outer5innerEi": "outer::inner"} {
		addr, ok := f.SymbolAddr(symbol)
		if !ok {
			t.Fatalf("no symbol %s", symbol)
		}
		got := s.AppendFrames(nil, objfile.Addr{Image: testImage, Off: addr + 1})
		if d := cmp.Diff([]Frame{{Func: want, SystemName: symbol, Kind: Native}}, got); d != "" {
			t.Error(d)
		}
	}
	got := s.AppendFrames(nil, objfile.Addr{Image: testImage, Off: 0x7fff0000})
	if d := cmp.Diff([]Frame{{Func: "libx.so+0x7fff0000", SystemName: "libx.so+0x7fff0000"}}, got); d != "" {
		t.Error(d)
	}
	if n := s.Notes(); len(n) != 0 {
		t.Errorf("notes about a plain C library: %q", n)
	}
}

func TestImageThatCannotBeReadIsNotedOnce(t *testing.T) {
	im := &objfile.Image{ID: testImage, Path: "/srv/\xff/api", Err: errors.New("permission denied")}
	s := New(func(objfile.ImageID) *objfile.Image { return im }, &Options{MaxCache: 2})
	for off := range uint64(10) {
		got := s.AppendFrames(nil, objfile.Addr{Image: testImage, Off: 16 + off%5})
		if len(got) != 1 || !strings.HasPrefix(got[0].Func, "api+0x1") {
			t.Errorf("%+v", got)
		}
	}
	if len(s.cache) > 2 || !s.Overflowed() {
		t.Errorf("cache holds %d, overflowed: %v", len(s.cache), s.Overflowed())
	}
	if d := cmp.Diff([]string{"/srv/\uFFFD/api: no symbols: permission denied"}, s.Notes()); d != "" {
		t.Error(d)
	}
	s.Reset()
	if len(s.Notes()) != 0 || s.Overflowed() {
		t.Errorf("after Reset: %q, overflowed: %v", s.Notes(), s.Overflowed())
	}
}

func TestLongMangledNameIsLeftAlone(t *testing.T) {
	for _, symbol := range []string{"_Z" + strings.Repeat("N", 2000), "_ZSt", "_Rx", "_Z", "main"} {
		if got := demangled(symbol); got != symbol {
			t.Errorf("%.20q became %q", symbol, got)
		}
	}
}

func FuzzDemangle(f *testing.F) {
	f.Add("_ZN5outer5innerEi")
	f.Add("_RNvC6_123foo3bar")
	f.Fuzz(func(t *testing.T, name string) {
		if got := demangled(clean(name)); len(got) > maxName || name != "" && got == "" {
			t.Errorf("%q became %d bytes", name, len(got))
		}
	})
}

func TestElide(t *testing.T) {
	g := func(name string) Frame { return Frame{Func: name, Kind: Go} }
	w := func(name string) Frame { return Frame{Func: name, Kind: Go, Wrapper: true} }
	k, c := Frame{Func: "do_syscall_64", Kind: Kernel}, Frame{Func: "write", Kind: Native}
	one := func(fs ...Frame) (stack [][]Frame) {
		for _, f := range fs {
			stack = append(stack, []Frame{f})
		}
		return stack
	}
	preempt, preempt2 := g("runtime.asyncPreempt"), g("runtime.asyncPreempt2")
	tests := map[string]struct {
		stack [][]Frame
		want  string
	}{
		"goexit is no root":                      {one(g("f"), g("runtime.main"), g("runtime.goexit")), "f runtime.main"},
		"other roots stay":                       {one(g("runtime.schedule"), g("runtime.mcall")), "runtime.schedule runtime.mcall"},
		"preemption belongs to the function":     {one(preempt2, preempt, g("f"), g("runtime.goexit")), "f"},
		"also below the kernel":                  {one(k, preempt, g("f")), "do_syscall_64 f"},
		"not within a stack":                     {one(g("runtime.mcall"), preempt2, preempt, g("f")), "runtime.mcall runtime.asyncPreempt2 runtime.asyncPreempt f"},
		"wrapper":                                {one(g("T.M"), w("(*T).M"), g("f")), "T.M f"},
		"wrapper as leaf":                        {one(w("(*T).M"), g("f")), "f"},
		"wrapper that panics":                    {one(g("runtime.panicwrap"), w("(*T).M"), g("f")), "runtime.panicwrap (*T).M f"},
		"inlined into a wrapper":                 {[][]Frame{{g("T.M"), w("(*T).M")}, {g("f")}}, "T.M f"},
		"kernel and C frames stay":               {one(k, c, g("f")), "do_syscall_64 write f"},
		"a C function may be called as it likes": {one(Frame{Func: "runtime.goexit", Kind: Native}, g("f")), "runtime.goexit f"},
		"a stack is never emptied":               {one(g("runtime.goexit")), "runtime.goexit"},
		"nor reduced to the kernel":              {one(k, preempt, g("runtime.goexit")), "do_syscall_64 runtime.asyncPreempt runtime.goexit"},
		"empty":                                  {nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			masks := Elide([]uint64{99}, tt.stack)
			var got []string
			for i, frames := range tt.stack {
				for j, f := range frames {
					if masks[i+1]&(1<<j) != 0 {
						got = append(got, f.Func)
					}
				}
			}
			if s := strings.Join(got, " "); s != tt.want || masks[0] != 99 {
				t.Errorf("%q, want %q", s, tt.want)
			}
		})
	}
}
