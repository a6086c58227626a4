package objfile

// cgoFuncs are functions of package runtime/cgo's assembly (asm_amd64.s, asm_arm64.s) that the Go
// linker keeps in every program that holds that package, and whose names are in pclntab, so also in
// stripped programs.
const cgoFunc = "\x00crosscall2\x00"

// Cgo says that the Go program holds package runtime/cgo: C code runs in it, threads are libc's.
func (f *File) Cgo() bool {
	v, _ := f.cgo.get(func() (bool, error) {
		m, err := f.GoModule()
		if err != nil {
			return false, err
		}
		h, ok := f.pcHeaderAt(m.PCHeader)
		if !ok {
			return false, nil
		}
		s := newSearch(f)
		for range s.find(h.addr+h.offs[0], h.addr+h.offs[1], []byte(cgoFunc)) {
			return true, nil
		}
		return false, nil
	})
	return v
}
