package parca

import "github.com/pprofd/pprofd/export"

// kind is how profiles of a kind appear at the server.
type kind struct {
	name    string   // __name__: the server's user interface knows some (ui: well-known profiles)
	types   []string // of samples that are sent; nil: all
	instant bool     // not of a window
}

// kinds by export.Profile.Kind. Kinds that are not there go by their own name, all of them, as the profile says.
var kinds = map[string]kind{
	"cpu":       {name: "process_cpu"},
	"heap":      {name: "memory", types: []string{"inuse_objects", "inuse_space"}, instant: true},
	"allocs":    {name: "memory", types: []string{"alloc_objects", "alloc_space"}},
	"goroutine": {name: "goroutine", instant: true},
	"mutex":     {name: "mutex"},
	"block":     {name: "block"},
	"off_cpu":   {name: "off_cpu"},
	"wall":      {name: "wall"},
}

func kindOf(p *export.Profile) kind {
	if k, ok := kinds[p.Kind]; ok {
		return k
	}
	return kind{name: export.LabelName(p.Kind), instant: p.Duration <= 0}
}
