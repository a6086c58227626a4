package parca

import (
	"fmt"

	googlev1 "github.com/grafana/pyroscope/api/gen/proto/go/google/v1"
)

// validate finds what the server refuses.
func validate(p *googlev1.Profile) error {
	if len(p.StringTable) > 0 && p.StringTable[0] != "" {
		return fmt.Errorf("string 0 is %q, not empty", p.StringTable[0])
	}
	for _, f := range []func(*googlev1.Profile) error{checkTables, checkLocations, checkTypes, checkSamples} {
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}

// texts checks numbers of strings; 0 needs no table.
func texts(p *googlev1.Profile, what string, numbers ...int64) error {
	for _, n := range numbers {
		if n != 0 && n >= int64(len(p.StringTable)) {
			return fmt.Errorf("%s: string %d of %d", what, n, len(p.StringTable))
		}
	}
	return nil
}

func checkTables(p *googlev1.Profile) error {
	for i, m := range p.Mapping {
		if m.Id != uint64(i+1) {
			return fmt.Errorf("mapping id %d is not sequential", m.Id)
		}
		if err := texts(p, "mapping", m.Filename, m.BuildId); err != nil {
			return err
		}
	}
	for i, f := range p.Function {
		if f.Id != uint64(i+1) {
			return fmt.Errorf("function id %d is not sequential", f.Id)
		}
		if err := texts(p, "function", f.Name, f.SystemName, f.Filename); err != nil {
			return err
		}
	}
	return nil
}

func checkLocations(p *googlev1.Profile) error {
	for i, l := range p.Location {
		switch {
		case l.Id != uint64(i+1):
			return fmt.Errorf("location id %d is not sequential", l.Id)
		case l.MappingId > uint64(len(p.Mapping)):
			return fmt.Errorf("location %d has mapping %d", l.Id, l.MappingId)
		}
		for _, line := range l.Line {
			if line.FunctionId > uint64(len(p.Function)) {
				return fmt.Errorf("location %d has function %d", l.Id, line.FunctionId)
			}
		}
	}
	return nil
}

func checkTypes(p *googlev1.Profile) error {
	if len(p.SampleType) == 0 && len(p.Sample) > 0 {
		return fmt.Errorf("samples without types")
	}
	for _, t := range p.SampleType {
		if err := texts(p, "sample type", t.Type, t.Unit); err != nil {
			return err
		}
	}
	return texts(p, "period type", p.PeriodType.GetType(), p.PeriodType.GetUnit())
}

func checkSamples(p *googlev1.Profile) error {
	for i, s := range p.Sample {
		if len(s.Value) != len(p.SampleType) {
			return fmt.Errorf("sample %d has %d values of %d types", i, len(s.Value), len(p.SampleType))
		}
		for _, l := range s.LocationId {
			if l == 0 || l > uint64(len(p.Location)) {
				return fmt.Errorf("sample %d has location %d of %d", i, l, len(p.Location))
			}
		}
		for _, l := range s.Label {
			if l.Key == 0 {
				return fmt.Errorf("sample %d has a label without a key", i)
			}
			if err := texts(p, "label", l.Key, l.Str); err != nil {
				return err
			}
		}
	}
	return nil
}

// harmless reports what the server takes to its own damage, or to that of who looks at it. It is false where it would be dead.
func (s *Server) harmless(p *googlev1.Profile) bool {
	if len(p.StringTable) == 0 && len(p.SampleType) > 0 {
		s.harm("types without a table of strings: it dies of an index out of range")
		return false
	}
	if len(p.Sample) > 0 && (p.PeriodType == nil || p.PeriodType.Type == 0 || p.PeriodType.Unit == 0) {
		s.harm("no period type: from then on it cannot list profile types, for nobody")
	}
	if len(p.Sample) > 0 && p.TimeNanos == 0 {
		s.harm("no time: it is kept under 1970")
	}
	if p.DurationNanos < 0 {
		s.harm("a negative duration: it is of a window and of an instant")
	}
	for _, l := range p.Location {
		for _, line := range l.Line {
			if line.FunctionId == 0 {
				s.harm("location %d has a line without a function: what it answers cannot be parsed", l.Id)
			}
		}
	}
	s.harmlessSamples(p)
	return true
}

func (s *Server) harmlessSamples(p *googlev1.Profile) {
	for i, sample := range p.Sample {
		if len(sample.LocationId) == 0 {
			s.harm("sample %d has no stack: pictures miss it", i)
		}
		some := false
		for _, v := range sample.Value {
			some = some || v != 0
			if v < 0 {
				s.harm("sample %d has the value %d, which it subtracts", i, v)
			}
		}
		if !some {
			s.harm("sample %d is all zero", i)
		}
	}
}
