package goruntime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestSiteX86: the branch of the stack check, in all forms that the compiler gives it, else push %rbp; nothing that the
// kernel would single-step, and nothing behind a change of SP or of an argument.
func TestSiteX86(t *testing.T) {
	for name, tt := range map[string]struct {
		code   []byte
		off, n int
		check  bool
	}{
		"small frame": {[]byte{0x49, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0x22, 2, 0, 0, 0x55}, 4, 6, true},
		"short jump":  {[]byte{0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x55}, 4, 2, true},
		"large frame": {[]byte{0x4c, 0x8d, 0x64, 0x24, 0xd8, 0x4d, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x55}, 9, 2, true},
		"nosplit":     {[]byte{0x55, 0x48, 0x89, 0xe5}, 0, 1, false},
		"sub first":   {[]byte{0x48, 0x83, 0xec, 0x18, 0x55}, 0, 0, false},
		"mov first":   {[]byte{0x48, 0x89, 0xc3, 0x76, 0x20}, 0, 0, false},
		"no code":     {nil, 0, 0, false},
		"cut":         {[]byte{0x49, 0x3b}, 0, 0, false},
		"push others": {[]byte{0x53, 0x55}, 0, 0, false},
	} {
		if off, n, check := siteX86(tt.code); off != tt.off || n != tt.n || check != tt.check {
			t.Errorf("%s: %d, %d, %t, want %d, %d, %t", name, off, n, check, tt.off, tt.n, tt.check)
		}
	}
}

// TestSiteA64: the same for arm64. The code is what go tool objdump shows of Go 1.24.
func TestSiteA64(t *testing.T) {
	for name, tt := range map[string]struct {
		code   []uint32
		off, n int
		check  bool
	}{
		"small frame":    {[]uint32{0xf9400b90, 0xeb3063ff, 0x540013e9, 0xf81b0ffe}, 8, 4, true},
		"large frame":    {[]uint32{0xf9400b90, 0xd10103f1, 0xeb10023f, 0x54000f29}, 12, 4, true},
		"Go 1.18":        {[]uint32{0xf9400b90, 0x910003f1, 0xeb10023f, 0x54000d89, 0xf81b0ffe}, 12, 4, true},
		"nosplit":        {[]uint32{0xf81b0ffe, 0xf81f83fd}, 0, 0, false},
		"an argument":    {[]uint32{0xf9400b80, 0xeb3063ff, 0x540013e9}, 0, 0, false}, // ldr x0
		"another branch": {[]uint32{0xf9400b90, 0xeb3063ff, 0x540013e0}, 0, 0, false}, // b.eq
		"no code":        {nil, 0, 0, false},
	} {
		var code []byte
		for _, in := range tt.code {
			code = binary.LittleEndian.AppendUint32(code, in)
		}
		if off, n, check := siteA64(code); off != tt.off || n != tt.n || check != tt.check {
			t.Errorf("%s: %d, %d, %t, want %d, %d, %t", name, off, n, check, tt.off, tt.n, tt.check)
		}
	}
}

// TestFindAllocSites: programs of each version have sites, all at the branch of the stack check or, on amd64, where the frame begins.
func TestFindAllocSites(t *testing.T) {
	for _, version := range testprog.Versions() {
		for _, arch := range []string{"amd64", "arm64"} {
			o := testprog.Options{Go: version, Arch: arch}
			t.Run(o.String(), func(t *testing.T) {
				f, version := openFile(t, testprog.Build(t, "alloc", o))
				s, err := FindAllocSites(f, version)
				if err != nil {
					t.Fatal(err)
				}
				var got []AllocFunc
				for _, site := range s.Heap {
					got = append(got, site.Func)
					if arch == "arm64" && !site.StackCheck {
						t.Errorf("%+v", site)
					}
				}
				if !slices.Equal(got, []AllocFunc{NextFree, AllocLarge, ReleaseAll}) {
					t.Errorf("functions %v", got)
				}
			})
		}
	}
}

// TestChooseSites: each allocation is to be seen once, also where the compiler inlined refill.
func TestChooseSites(t *testing.T) {
	all := map[AllocFunc]Site{}
	for _, fn := range []AllocFunc{Refill, NextFree, AllocLarge, MallocLarge, ReleaseAll, ProfileAlloc} {
		all[fn] = Site{Func: fn}
	}
	without := func(fns ...AllocFunc) map[AllocFunc]Site {
		m := map[AllocFunc]Site{}
		for fn, s := range all {
			m[fn] = s
		}
		for _, fn := range fns {
			delete(m, fn)
		}
		return m
	}
	const tiny, noscan, large = "runtime.mallocgcTiny", "runtime.mallocgcSmallNoscan", "runtime.mallocgcLarge"
	type inlining = map[AllocFunc][]string
	for name, tt := range map[string]struct {
		sites    map[AllocFunc]Site
		inlining inlining
		want     []AllocFunc
		refused  string
	}{
		"all":                        {sites: all, want: []AllocFunc{NextFree, AllocLarge, ReleaseAll}},
		"no refill":                  {sites: without(Refill), inlining: inlining{Refill: {NextFree.String()}}, want: []AllocFunc{NextFree, AllocLarge, ReleaseAll}},
		"no nextFree":                {sites: without(NextFree), inlining: inlining{NextFree: {noscan}}, want: []AllocFunc{Refill, AllocLarge, ReleaseAll}},
		"no releaseAll":              {sites: without(ReleaseAll), want: []AllocFunc{NextFree, AllocLarge}},
		"no allocLarge":              {sites: without(AllocLarge), inlining: inlining{AllocLarge: {large}}, want: []AllocFunc{NextFree, MallocLarge, ReleaseAll}},
		"nextFree here and there":    {sites: all, inlining: inlining{NextFree: {noscan}}, want: []AllocFunc{Refill, AllocLarge, ReleaseAll}},
		"refill in nextFree":         {sites: all, inlining: inlining{NextFree: {tiny}, Refill: {NextFree.String()}}, want: []AllocFunc{NextFree, Refill, AllocLarge, ReleaseAll}},
		"refill in nextFree only":    {sites: all, inlining: inlining{Refill: {NextFree.String()}}, want: []AllocFunc{NextFree, AllocLarge, ReleaseAll}},
		"refill and nextFree in one": {sites: all, inlining: inlining{NextFree: {noscan}, Refill: {noscan}}, refused: "inlined runtime.(*mcache).refill into " + noscan},
		"refill in both":             {sites: all, inlining: inlining{NextFree: {noscan}, Refill: {NextFree.String(), noscan}}, refused: "inlined runtime.(*mcache).refill into " + noscan},
		"allocLarge here and there":  {sites: all, inlining: inlining{AllocLarge: {large, "runtime.mallocgc"}}, refused: "inlined runtime.(*mcache).allocLarge into " + large + ", runtime.mallocgc"},
		"mallocgcLarge, too":         {sites: all, inlining: inlining{AllocLarge: {large}, MallocLarge: {"runtime.mallocgc"}}, refused: "inlined runtime.(*mcache).allocLarge into " + large},
		"refill cannot be probed":    {sites: without(Refill), inlining: inlining{NextFree: {tiny}, Refill: {NextFree.String()}}, refused: "refill is not as expected"},
		"neither":                    {sites: without(Refill, NextFree), refused: "refill is not as expected"},
	} {
		var s AllocSites
		err := s.choose(tt.sites, tt.inlining)
		if tt.refused != "" {
			if !errors.Is(err, ErrNoAllocSites) || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []AllocFunc
		for _, site := range s.Heap {
			got = append(got, site.Func)
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: %v, want %v", name, got, tt.want)
			}
		}
	}
}

// TestChooseProfileSite: the runtime's own samples are seen only where they are taken by a call.
func TestChooseProfileSite(t *testing.T) {
	sites := map[AllocFunc]Site{NextFree: {Func: NextFree}, AllocLarge: {Func: AllocLarge}, ProfileAlloc: {Func: ProfileAlloc}}
	for inlined, want := range map[string]int{"": 1, "runtime.mallocgc": 0} {
		s, inlining := AllocSites{Linked: true}, map[AllocFunc][]string{}
		if inlined != "" {
			inlining[ProfileAlloc] = []string{inlined}
		}
		if err := s.choose(sites, inlining); err != nil || len(s.Profile) != want || len(s.Heap) != 2 {
			t.Errorf("inlined into %q: %+v, %v", inlined, s, err)
		}
	}
}

// TestVerifySites: only the file's code, or a breakpoint that the kernel has put there, is accepted.
func TestVerifySites(t *testing.T) {
	sites := []Site{{Addr: 4, Code: []byte{0x76, 0x20}}}
	for name, tt := range map[string]struct {
		memory []byte
		ok     bool
	}{
		"the file's": {[]byte{0, 0, 0, 0, 0x76, 0x20}, true},
		"probed":     {[]byte{0, 0, 0, 0, 0xcc, 0x20}, true},
		"another":    {[]byte{0, 0, 0, 0, 0x76, 0x21}, false},
		"no memory":  {[]byte{0, 0}, false},
	} {
		if err := VerifySites(bytes.NewReader(tt.memory), 0, sites); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrNoAllocSites) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSpansAreRead: the kernel side reads the fields of a span at once, so that they must lie close together.
func TestSpansAreRead(t *testing.T) {
	for _, row := range heapTable() {
		if !row.off.near() {
			t.Errorf("Go 1.%d: %+v", row.minor, row.off)
		}
	}
	good := heapTable()[0].off
	for _, spoil := range []func(*HeapOffsets){
		func(o *HeapOffsets) { o.SpanSize = o.SpanCount + spanTail }, func(o *HeapOffsets) { o.SpanSize = o.SpanCount - 8 },
		func(o *HeapOffsets) { o.SpanClass = o.SpanCount + spanTail }, func(o *HeapOffsets) { o.SpanBefore = o.SpanCount + 3 },
	} {
		bad := good
		if spoil(&bad); bad.near() {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
