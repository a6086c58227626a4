package pyroscope

import (
	"github.com/grafana/pyroscope-go/upstream"

	"github.com/pprofd/pprofd/export"
)

// kind says what a kind of profiles is there.
type kind struct {
	name  string   // __name__, the first part of the profile type
	types []string // sample types that are sent; nil: all
	// config is what /ingest derives the name from, and older servers units and how to add up.
	config map[string]*upstream.SampleType
}

// kinds has those that views of its user interface fill from (facts: ui/src/api/profileTypes.json). Values that belong to a window
// are deltas, the others of the moment: a heap profile's alloc_* count from the beginning of the process, and would be added up
// anew with each profile.
var kinds = map[string]kind{
	"cpu": {name: "process_cpu", config: map[string]*upstream.SampleType{
		"samples": {DisplayName: "cpu", Units: "samples", Sampled: true}, "cpu": {Units: "nanoseconds", Sampled: true},
	}},
	"heap": {name: "memory", types: []string{"inuse_objects", "inuse_space"}, config: map[string]*upstream.SampleType{
		"inuse_objects": {Units: "objects", Aggregation: "average"}, "inuse_space": {Units: "bytes", Aggregation: "average"},
	}},
	"allocs": {name: "memory", types: []string{"alloc_objects", "alloc_space"}, config: map[string]*upstream.SampleType{
		"alloc_objects": {Units: "objects"}, "alloc_space": {Units: "bytes"},
	}},
	"goroutine": {name: "goroutines", config: map[string]*upstream.SampleType{
		"goroutine": {DisplayName: "goroutines", Units: "goroutines", Aggregation: "average"},
	}},
	"mutex": {name: "mutex", config: map[string]*upstream.SampleType{
		"contentions": {DisplayName: "mutex_count", Units: "lock_samples"}, "delay": {DisplayName: "mutex_duration", Units: "lock_nanoseconds"},
	}},
	"block": {name: "block", config: map[string]*upstream.SampleType{
		"contentions": {DisplayName: "block_count", Units: "lock_samples"}, "delay": {DisplayName: "block_duration", Units: "lock_nanoseconds"},
	}},
	"wall":    {name: "wall"},
	"off_cpu": {name: "off_cpu"},
}

// kindOf gives other kinds a name that can be asked for.
func kindOf(name string) kind {
	k, ok := kinds[name]
	if !ok {
		k.name = export.LabelName(name)
	}
	return k
}
