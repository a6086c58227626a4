package otlp

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
)

// checker looks for what profiles.proto forbids or advises against. Its errs are all that it found, up to a limit.
type checker struct {
	d    pprofile.ProfilesDictionary
	errs []error
	// Numbers of tables that are referred to.
	texts, functions, mappings, locations, stacks, attributes, links map[int32]bool
}

const maxErrors = 10

func (c *checker) errorf(format string, args ...any) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

// check says what is wrong with a request's profiles.
func check(all pprofile.Profiles) error {
	c := &checker{
		d:     all.Dictionary(),
		texts: map[int32]bool{}, functions: map[int32]bool{}, mappings: map[int32]bool{}, locations: map[int32]bool{},
		stacks: map[int32]bool{}, attributes: map[int32]bool{}, links: map[int32]bool{},
	}
	if all.ResourceProfiles().Len() == 0 {
		c.errorf("there are no profiles")
	}
	c.zeros()
	if len(c.errs) > 0 { // numbers mean nothing then
		return errors.Join(c.errs...)
	}
	for _, rp := range all.ResourceProfiles().All() {
		c.resource(rp)
	}
	c.tables()
	c.duplicates()
	c.orphans()
	return errors.Join(c.errs...)
}

// zeros: the first of each table is there, and its zero value.
func (c *checker) zeros() {
	d := c.d
	for name, n := range map[string]int{
		"string": d.StringTable().Len(), "function": d.FunctionTable().Len(), "mapping": d.MappingTable().Len(), "location": d.LocationTable().Len(),
		"stack": d.StackTable().Len(), "attribute": d.AttributeTable().Len(), "link": d.LinkTable().Len(),
	} {
		if n == 0 {
			c.errorf("%s_table is empty", name)
		}
	}
	if len(c.errs) > 0 {
		return
	}
	f, m, l, a := d.FunctionTable().At(0), d.MappingTable().At(0), d.LocationTable().At(0), d.AttributeTable().At(0)
	for name, zero := range map[string]bool{
		"string":    d.StringTable().At(0) == "",
		"function":  f.NameStrindex() == 0 && f.SystemNameStrindex() == 0 && f.FilenameStrindex() == 0 && f.StartLine() == 0,
		"mapping":   m.MemoryStart() == 0 && m.MemoryLimit() == 0 && m.FileOffset() == 0 && m.FilenameStrindex() == 0 && m.AttributeIndices().Len() == 0,
		"location":  l.Address() == 0 && l.MappingIndex() == 0 && l.Lines().Len() == 0 && l.AttributeIndices().Len() == 0,
		"stack":     d.StackTable().At(0).LocationIndices().Len() == 0,
		"attribute": a.KeyStrindex() == 0 && a.UnitStrindex() == 0 && a.Value().Type() == pcommon.ValueTypeEmpty,
		"link":      d.LinkTable().At(0).TraceID().IsEmpty() && d.LinkTable().At(0).SpanID().IsEmpty(),
	} {
		if !zero {
			c.errorf("%s_table[0] is not its zero value", name)
		}
	}
}

// use notes that number n of a table is referred to.
func (c *checker) use(used map[int32]bool, n int32, table int, what string, args ...any) bool {
	if n < 0 || int(n) >= table {
		c.errorf("%s: %d is not in the table of %d", fmt.Sprintf(what, args...), n, table)
		return false
	}
	used[n] = true
	return true
}

func (c *checker) text(n int32, what string, args ...any) string {
	if c.use(c.texts, n, c.d.StringTable().Len(), what, args...) {
		return c.d.StringTable().At(int(n))
	}
	return ""
}

// attributesOf: indices are in the table, and each key is there once.
func (c *checker) attributesOf(list pcommon.Int32Slice, what string, args ...any) {
	keys := map[int32]bool{}
	for _, n := range list.All() {
		if !c.use(c.attributes, n, c.d.AttributeTable().Len(), what, args...) {
			continue
		}
		key := c.d.AttributeTable().At(int(n)).KeyStrindex()
		if n == 0 || keys[key] {
			c.errorf("%s: attribute %d: none, or its key is there twice", fmt.Sprintf(what, args...), n)
		}
		keys[key] = true
	}
}

func (c *checker) resource(rp pprofile.ResourceProfiles) {
	c.keyValues(rp.Resource().Attributes())
	if v, ok := rp.Resource().Attributes().Get("service.name"); !ok || v.Type() != pcommon.ValueTypeStr || v.Str() == "" {
		c.errorf("the resource has no service.name")
	}
	c.schema(rp.SchemaUrl())
	if rp.ScopeProfiles().Len() == 0 {
		c.errorf("a resource has no scope")
	}
	for _, sp := range rp.ScopeProfiles().All() {
		c.schema(sp.SchemaUrl())
		c.keyValues(sp.Scope().Attributes())
		if sp.Scope().Name() == "" || sp.Profiles().Len() == 0 {
			c.errorf("a scope has no name or no profiles")
		}
		for i, p := range sp.Profiles().All() {
			c.profile(i, p)
		}
	}
}

func (c *checker) schema(url string) {
	if !strings.HasPrefix(url, "https://opentelemetry.io/schemas/1.") {
		c.errorf("schema URL %q", url)
	}
}

// keyValues are written by references to the table of strings, which have become texts again.
func (c *checker) keyValues(m pcommon.Map) {
	known := map[string]int32{}
	for i, s := range c.d.StringTable().All() {
		known[s] = int32(i)
	}
	use := func(s string) {
		if n, ok := known[s]; ok {
			c.texts[n] = true
		}
	}
	seen := map[string]bool{}
	for k, v := range m.All() {
		if k == "" || seen[k] || !utf8.ValidString(k) || !utf8.ValidString(v.AsString()) {
			c.errorf("attribute %q=%q: is empty, there twice, or no UTF-8", k, v.AsString())
		}
		seen[k] = true
		use(k)
		switch v.Type() {
		case pcommon.ValueTypeStr:
			use(v.Str())
		case pcommon.ValueTypeSlice:
			for _, e := range v.Slice().All() {
				use(e.AsString())
			}
		}
	}
}

func (c *checker) profile(i int, p pprofile.Profile) {
	if c.text(p.SampleType().TypeStrindex(), "sample type") == "" || c.text(p.SampleType().UnitStrindex(), "sample unit") == "" {
		c.errorf("profile %d has no sample type", i)
	}
	if c.text(p.PeriodType().TypeStrindex(), "period type") == "" || c.text(p.PeriodType().UnitStrindex(), "period unit") == "" || p.Period() <= 0 {
		c.errorf("profile %d has no period", i)
	}
	at := p.Time().AsTime()
	if at.Before(time.Now().AddDate(-1, 0, 0)) || at.After(time.Now().Add(time.Hour)) || p.DurationNano() > uint64(24*time.Hour) {
		c.errorf("profile %d is of %v, and lasted %v", i, at, time.Duration(p.DurationNano()))
	}
	if p.ProfileID().IsEmpty() {
		c.errorf("profile %d has no id", i)
	}
	if (p.OriginalPayloadFormat() == "") != (p.OriginalPayload().Len() == 0) {
		c.errorf("profile %d has half of an original payload", i)
	}
	c.attributesOf(p.AttributeIndices(), "profile %d", i)
	if p.Samples().Len() == 0 {
		c.errorf("profile %d has no samples", i)
	}
	seen := map[string]bool{}
	for j, s := range p.Samples().All() {
		c.sample(j, s)
		identity := fmt.Sprint(s.StackIndex(), s.LinkIndex(), s.AttributeIndices().AsRaw())
		if seen[identity] {
			c.errorf("profile %d: sample %d differs from another in nothing but its value", i, j)
		}
		seen[identity] = true
	}
}

func (c *checker) sample(i int, s pprofile.Sample) {
	c.use(c.stacks, s.StackIndex(), c.d.StackTable().Len(), "sample %d: stack", i)
	c.use(c.links, s.LinkIndex(), c.d.LinkTable().Len(), "sample %d: link", i)
	c.attributesOf(s.AttributeIndices(), "sample %d", i)
	if s.StackIndex() == 0 {
		c.errorf("sample %d has no stack", i)
	}
	values, times := s.Values().Len(), s.TimestampsUnixNano().Len()
	if values+times == 0 || values > 0 && times > 0 && values != times || times == 0 && values > 1 {
		c.errorf("sample %d has %d values and %d times", i, values, times)
	}
	for _, v := range s.Values().All() {
		if v < 0 {
			c.errorf("sample %d has the value %d", i, v)
		}
	}
}

// tables: what their elements refer to is there.
func (c *checker) tables() {
	d := c.d
	for i, s := range d.StringTable().All() {
		if !utf8.ValidString(s) {
			c.errorf("string %d is no UTF-8: %q", i, s)
		}
	}
	for i, s := range d.StackTable().All() {
		for _, n := range s.LocationIndices().All() {
			c.use(c.locations, n, d.LocationTable().Len(), "stack %d: location", i)
		}
	}
	for i, l := range d.LocationTable().All() {
		c.use(c.mappings, l.MappingIndex(), d.MappingTable().Len(), "location %d: mapping", i)
		c.attributesOf(l.AttributeIndices(), "location %d", i)
		for _, line := range l.Lines().All() {
			c.use(c.functions, line.FunctionIndex(), d.FunctionTable().Len(), "location %d: function", i)
			if line.Line() < 0 || line.Column() < 0 {
				c.errorf("location %d: line %d, column %d", i, line.Line(), line.Column())
			}
		}
	}
	for i, m := range d.MappingTable().All() {
		c.text(m.FilenameStrindex(), "mapping %d: file", i)
		c.attributesOf(m.AttributeIndices(), "mapping %d", i)
	}
	for i, f := range d.FunctionTable().All() {
		if c.text(f.NameStrindex(), "function %d: name", i)+c.text(f.SystemNameStrindex(), "function %d: system name", i)+
			c.text(f.FilenameStrindex(), "function %d: file", i) == "" && i > 0 {
			c.errorf("function %d has neither names nor a file", i)
		}
	}
	for i, a := range d.AttributeTable().All() {
		c.text(a.UnitStrindex(), "attribute %d: unit", i)
		if c.text(a.KeyStrindex(), "attribute %d: key", i) == "" && i > 0 {
			c.errorf("attribute %d has no key", i)
		}
	}
}

// duplicates: no table has anything twice.
func (c *checker) duplicates() {
	d := c.d
	seen := map[string]bool{}
	once := func(table string, i int, value ...any) {
		k := fmt.Sprintf("%s %q", table, fmt.Sprint(value...))
		if seen[k] {
			c.errorf("%s_table has its number %d twice", table, i)
		}
		seen[k] = true
	}
	for i, s := range d.StringTable().All() {
		once("string", i, s)
	}
	for i, f := range d.FunctionTable().All() {
		once("function", i, f.NameStrindex(), f.SystemNameStrindex(), f.FilenameStrindex(), f.StartLine())
	}
	for i, m := range d.MappingTable().All() {
		once("mapping", i, m.MemoryStart(), m.MemoryLimit(), m.FileOffset(), m.FilenameStrindex(), m.AttributeIndices().AsRaw())
	}
	for i, l := range d.LocationTable().All() {
		var lines []int64
		for _, line := range l.Lines().All() {
			lines = append(lines, int64(line.FunctionIndex()), line.Line(), line.Column())
		}
		once("location", i, l.Address(), l.MappingIndex(), lines, l.AttributeIndices().AsRaw())
	}
	for i, s := range d.StackTable().All() {
		once("stack", i, s.LocationIndices().AsRaw())
	}
	for i, a := range d.AttributeTable().All() {
		once("attribute", i, a.KeyStrindex(), a.UnitStrindex(), a.Value().Type(), a.Value().AsString())
	}
	for i, l := range d.LinkTable().All() {
		once("link", i, l.TraceID(), l.SpanID())
	}
}

// orphans: everything in the tables is referred to.
func (c *checker) orphans() {
	d := c.d
	for _, t := range []struct {
		name string
		n    int
		used map[int32]bool
	}{
		{"string", d.StringTable().Len(), c.texts},
		{"function", d.FunctionTable().Len(), c.functions},
		{"mapping", d.MappingTable().Len(), c.mappings},
		{"location", d.LocationTable().Len(), c.locations},
		{"stack", d.StackTable().Len(), c.stacks},
		{"attribute", d.AttributeTable().Len(), c.attributes},
		{"link", d.LinkTable().Len(), c.links},
	} {
		for i := 1; i < t.n; i++ {
			if !t.used[int32(i)] {
				c.errorf("%s_table[%d] is referred to by nothing", t.name, i)
			}
		}
	}
}
