package goruntime

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"io"
	"testing"
)

// systemstackCode is the beginning of runtime.systemstack, by build mode; PIE and c-shared are from Go 1.27.4.
func systemstackCode(t testing.TB, name string) []byte {
	t.Helper()
	const rest = "488b5830" + "483b4348" + "7465" + "488b13" + "4839d0" + "745d" + "483b83b8000000" + "755d" // load m, compare
	code := map[string]string{
		"executable": "554889e5488b7c2410" + "64488b0425f8ffffff" + rest,
		"static":     "554889e5488b7c2410" + "64488b0425a8ffffff" + rest,
		"pie":        "554889e5488b7c2410" + "48c7c1f8ffffff" + "64488b01" + rest,
		"c-shared":   "554889e5488b7c2410" + "488b0d00010000" + "64488b01" + rest,
	}[name]
	b, err := hex.DecodeString(code)
	if err != nil || len(b) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func TestDecodeTLS(t *testing.T) {
	const addr = 0x1000
	for name, want := range map[string]facts{
		"executable": {TLS: -8, HasTLS: true},
		"static":     {TLS: -0x58, HasTLS: true},
		"pie":        {TLS: -8, HasTLS: true},
		"c-shared":   {TLSSlot: addr + 16 + 0x100},
	} {
		t.Run(name, func(t *testing.T) {
			got := decodeSystemstack(elf.EM_X86_64, source{systemstackCode(t, name), addr})
			if got.TLS != want.TLS || got.HasTLS != want.HasTLS || got.TLSSlot != want.TLSSlot {
				t.Errorf("TLS %d, %v, slot %#x; want %+v", got.TLS, got.HasTLS, got.TLSSlot, want)
			}
			if got.GM != 0x30 || got.MGsignal != 0x48 || got.MCurg != 0xb8 {
				t.Errorf("fields %+v", got.Offsets)
			}
		})
	}
}

func TestResolveTLS(t *testing.T) {
	const bias, slot = 0x7000, 0x40
	for name, tc := range map[string]struct {
		word uint64
		ok   bool
	}{
		"a thread-local offset": {^uint64(0x58) + 1, true},
		"an address":            {0x7fff12345678, false},
		"not relocated yet":     {0, false},
	} {
		mem := make([]byte, 0x8000)
		binary.LittleEndian.PutUint64(mem[bias+slot:], tc.word)
		l := Layout{TLSSlot: slot}
		err := l.ResolveTLS(bytes.NewReader(mem), bias)
		if (err == nil) != tc.ok || l.HasTLS != tc.ok || tc.ok && l.TLS != -0x58 {
			t.Errorf("%s: TLS %#x, %v, %v", name, l.TLS, l.HasTLS, err)
		}
	}
	l := Layout{TLSSlot: 1 << 20}
	if err := l.ResolveTLS(bytes.NewReader(nil), 0); err == nil {
		t.Error("no error where nothing can be read")
	}
}

// FuzzDecodeTLS feeds code of both architectures to every decoder.
func FuzzDecodeTLS(f *testing.F) {
	for _, name := range []string{"executable", "static", "pie", "c-shared"} {
		f.Add(systemstackCode(f, name), uint64(0x401000), false)
	}
	// runtime.load_g of arm64, Go 1.27.4
	arm, _ := hex.DecodeString("7b0a00b0" + "6087b739" + "800000b4" + "40d03bd5" + "1b0280d2" + "1c687bf8" + "c0035fd6")
	f.Add(arm, uint64(0x8b980), true)
	f.Fuzz(func(t *testing.T, code []byte, addr uint64, arm bool) {
		mach := elf.EM_X86_64
		if arm {
			mach = elf.EM_AARCH64
		}
		src := source{code, addr}
		got := decodeSystemstack(mach, src)
		save, _ := decodeGosave(mach, src)
		decodeLoadG(src)
		got.combine(save)
		got.merge(decodeVDSO(mach, src))
		got.merge(decodeSetLabels(mach, src, got.GM))
		for _, fl := range fields() {
			if v := *fl.ptr(&got.Offsets); v >= maxOffset {
				t.Errorf("%s = %#x", fl.name, v)
			}
		}
		if n := len(decodeCalls(mach, src)) + len(decodeRefs(mach, src)); n > 2*maxCalls {
			t.Errorf("%d calls and references", n)
		}
	})
}

// FuzzVerify lets every word of the process be hostile: memory repeats the input.
func FuzzVerify(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}, uint8(27))
	f.Add(bytes.Repeat([]byte{0xff}, 24), uint8(21))
	f.Fuzz(func(t *testing.T, data []byte, minor uint8) {
		off, ok := rowFor(int(minor))
		if !ok || len(data) == 0 {
			return
		}
		for _, kind := range []LabelKind{LabelsNone, LabelsMap, LabelsSlice} {
			l := Layout{Offsets: off, Labels: kind, TLSSlot: 8, Globals: Globals{AllGPtr: 16, AllGLen: 24, M0: 32}}
			mem := &repeated{data: data}
			_ = l.Verify(mem, 0)
			_ = l.ResolveTLS(mem, 0)
			if mem.reads > 5000 {
				t.Errorf("%d reads", mem.reads)
			}
		}
	})
}

// repeated is memory that repeats data without end.
type repeated struct {
	data  []byte
	reads int
}

func (r *repeated) ReadAt(p []byte, off int64) (int, error) {
	r.reads++
	if off < 0 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = r.data[(uint64(off)+uint64(i))%uint64(len(r.data))]
	}
	return len(p), nil
}
