package gopclntab

// A wrapperID is the funcID that marks wrappers, which shifts between Go versions: 1 + the id,
// 0 when it has not been looked for, -1 when it could not be found.
type wrapperID int

func (w wrapperID) is(funcID uint8) bool { return int(w) == int(funcID)+1 }

// wrapperFuncID returns the module's wrapperID. It is that of runtime.deferreturn, which every Go
// version marks as a wrapper, "to not show in call stacks" (cmd/internal/objabi/funcid.go); its ABI
// wrapper, if there is one, has the id as well. It searches once, for a millisecond.
func (t *Table) wrapperFuncID() wrapperID {
	if t.wrapper != 0 {
		return t.wrapper
	}
	const name = runtimePrefix + "deferreturn"
	t.wrapper = -1
	found := t.lookup([]string{name}, func(Func) bool { return true })
	// Normal functions have id 0: then it is not the function we know.
	if rec, ok := found[name].record(); ok && rec.funcID != 0 {
		t.wrapper = wrapperID(rec.funcID) + 1
	}
	return t.wrapper
}

// Elided reports whether runtime.Callers, and so runtime/pprof, leaves the frame out: a wrapper is,
// unless it called one of the functions that panic instead of the function it wraps
// (runtime.elideWrapperCalling). callee is the name of the next inner frame, inlined ones and
// elided ones included, "" for the innermost frame of a stack.
func (fr Frame) Elided(callee string) bool {
	switch callee {
	case "runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap":
		return false
	}
	return fr.Wrapper
}
