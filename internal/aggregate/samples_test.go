package aggregate

import "testing"

// TestSampleSet: keys that are in one place are told apart, those that are equal are found one after the other, and what one profile
// had the next has not.
func TestSampleSet(t *testing.T) {
	var s sampleSet
	for round := range 3 {
		const n = 500
		s.reset(3 * n)
		var keys []sampleKey
		for i := range uint32(n) { // of one stack: targets, labels, sizes
			keys = append(keys, sampleKey{hash: 7, target: i}, sampleKey{hash: 7, labels: LabelID(i + 1)}, sampleKey{hash: 7, size: uint16(i + 1)})
		}
		for i, k := range keys {
			if at := s.find(k, 0); at != 0 {
				t.Fatalf("round %d: %+v is sample %d before it was added", round, k, at)
			}
			if s.add(k); s.find(k, 0) != uint32(i+1) || s.find(k, uint32(i+1)) != 0 {
				t.Fatalf("round %d: %+v is sample %d, then %d, want %d alone", round, k, s.find(k, 0), s.find(k, uint32(i+1)), i+1)
			}
		}
	}
	s.reset(3)
	for range 3 {
		s.add(sampleKey{hash: 1})
	}
	if a, b, c := s.find(sampleKey{hash: 1}, 0), s.find(sampleKey{hash: 1}, 1), s.find(sampleKey{hash: 1}, 3); a != 1 || b != 2 || c != 0 {
		t.Errorf("equal keys are %d, %d, %d", a, b, c)
	}
}

// TestSampleSetSpreads: targets of one stack do not lie in one heap.
func TestSampleSetSpreads(t *testing.T) {
	var s sampleSet
	s.reset(2000)
	taken := make(map[int]bool)
	for i := range uint32(2000) {
		taken[s.slot(sampleKey{hash: 7, target: i})] = true
	}
	if len(taken) < 1000 {
		t.Errorf("2000 targets begin in %d of %d places", len(taken), len(s.slots))
	}
}
