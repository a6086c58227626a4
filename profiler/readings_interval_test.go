package profiler

import (
	"testing"
	"time"
)

// TestSetInterval: who would wait for longer than the new interval waits no longer than that, and a longer one begins with the
// next reading.
func TestSetInterval(t *testing.T) {
	r := NewReadings(ReadingsConfig{Interval: time.Hour})
	now := time.Now()
	on, off := Process{PID: 1 << 22, Start: 1}, Process{PID: 1 << 22, Start: 2}
	r.wait[on] = &reading{next: now.Add(50 * time.Minute), state: MemoryOn}
	r.wait[off] = &reading{next: now.Add(5 * time.Hour), state: MemoryLinkedOut}
	if err := r.SetInterval(time.Minute); err != nil {
		t.Fatal(err)
	}
	if wait := r.wait[on].next.Sub(now); wait > time.Minute+time.Second {
		t.Errorf("it waits for %v", wait)
	}
	if wait := r.wait[off].next.Sub(now); wait != 5*time.Hour {
		t.Errorf("one that has nothing to read is looked at again after %v", wait)
	}
	next := r.wait[on].next
	if err := r.SetInterval(time.Hour); err != nil || r.wait[on].next != next || r.interval != time.Hour {
		t.Errorf("%v; %v to %v", err, next, r.wait[on].next)
	}
	if r.SetInterval(0) == nil {
		t.Error("an interval of 0 is taken")
	}
}
