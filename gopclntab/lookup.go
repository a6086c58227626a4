package gopclntab

import (
	"slices"
	"strings"
)

// Bounds of a search by name.
const (
	runtimePrefix  = "runtime."
	runtimeMargin  = 4096    // functions without the prefix after which package runtime lies behind
	maxLookupFills = 1 << 16 // pages read: 256 MiB; a whole 100 MB binary takes 7,000
	maxInlining    = 1 << 17 // inlined calls looked at by Inlining: package runtime has some 6,000
)

// Lookup finds functions by their full names ("runtime.systemstack"); names that are not found are
// missing from the result. Where an assembly function has an ABI wrapper of the same name, the
// result is the function, not its wrapper.
//
// Names of package runtime are found in a millisecond whatever the size of the binary, also when
// some do not exist: the linker lays packages out in the order of their dependencies, so that the
// search ends a little behind the package. Other names take a search of all functions.
func (t *Table) Lookup(names ...string) map[string]Func {
	wrapper := t.wrapperFuncID()
	return t.lookup(names, func(f Func) bool {
		rec, ok := f.record()
		return ok && !wrapper.is(rec.funcID)
	})
}

// lookup finds the first function of each name that match accepts.
func (t *Table) lookup(names []string, match func(Func) bool) map[string]Func {
	s := search{want: make(map[string]bool), found: make(map[string]Func), match: match}
	for _, name := range names {
		s.add(name)
	}
	fills := t.pages.fills
	for i := uint64(0); i < t.nfunc && !s.over(i) && t.pages.fills-fills < maxLookupFills; i++ {
		s.visit(t, i)
	}
	return s.found
}

// Inlining finds the functions of package runtime into which the compiler has inlined calls of others, by the full names of these;
// what was inlined nowhere there is missing from the result. The package is found as Lookup finds it.
func (t *Table) Inlining(names ...string) map[string][]Func {
	s := search{want: make(map[string]bool)}
	s.add(runtimePrefix)                        // no function has this name: the search goes on to the package's end
	known := make(map[int32]string, len(names)) // by their offsets; "": not wanted
	found := make(map[string][]Func)
	var calls []int32
	t.budget = maxDecode
	left := maxInlining
	fills := t.pages.fills
	for i := uint64(0); i < t.nfunc && !s.over(i) && t.pages.fills-fills < maxLookupFills; i++ {
		s.visit(t, i)
		f, ok := t.funcAt(i)
		if !ok || s.runtime != i+1 {
			continue
		}
		calls = f.inlinedCalls(calls[:0], left)
		left -= len(calls)
		for _, off := range calls {
			name, ok := known[off]
			if !ok {
				if name = t.name(off); !slices.Contains(names, name) {
					name = ""
				}
				known[off] = name
			}
			if in := found[name]; name != "" && (len(in) == 0 || in[len(in)-1] != f) {
				found[name] = append(in, f)
			}
		}
	}
	return found
}

// A search is the state of one lookup.
type search struct {
	want    map[string]bool // names not found yet
	found   map[string]Func
	match   func(Func) bool
	longest int    // name
	others  int    // names wanted outside package runtime
	runtime uint64 // 1 + index of the last function of package runtime
	buf     []byte
}

func (s *search) add(name string) {
	if name == "" || len(name) > maxString || s.want[name] {
		return
	}
	s.want[name] = true
	s.longest = max(s.longest, len(name))
	if !strings.HasPrefix(name, runtimePrefix) {
		s.others++
	}
}

// over reports whether looking at the i-th function and those after it is pointless.
func (s *search) over(i uint64) bool {
	return len(s.want) == 0 || s.others == 0 && s.runtime != 0 && i-s.runtime > runtimeMargin
}

// visit looks at the i-th function.
func (s *search) visit(t *Table, i uint64) {
	rec, ok := t.funcRecord(i)
	if !ok {
		return
	}
	off, ok := t.nameOff(rec)
	addr := t.funcname + uint64(max(off, 0))
	if !ok || off < 0 || addr >= t.cutab {
		return
	}
	limit := max(s.longest, len(runtimePrefix)) + 1
	s.buf, ok = t.pages.appendCString(s.buf[:0], addr, min(t.cutab-addr, uint64(limit)))
	if strings.HasPrefix(string(s.buf), runtimePrefix) {
		s.runtime = i + 1
	}
	if !ok || !s.want[string(s.buf)] {
		return
	}
	if f, ok := t.funcAt(i); ok && s.match(f) {
		s.take(f)
	}
}

// take notes that f is the function named in buf.
func (s *search) take(f Func) {
	name := string(s.buf)
	s.found[name] = f
	delete(s.want, name)
	if !strings.HasPrefix(name, runtimePrefix) {
		s.others--
	}
}
