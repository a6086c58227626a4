package bpf

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestReplay: a replay gives the very records that the kernel gave, in their order, and then ends.
func TestReplay(t *testing.T) {
	p := load(t, Options{Frequency: 499, Event: EventCPUClock})
	if err := errors.Join(p.SetTarget(uint32(os.Getpid()), &Target{}), p.Start()); err != nil {
		t.Fatal(err)
	}
	burn(300 * time.Millisecond)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	rec := NewRecorder(&file)
	var want []Record
	var more []bool
	drain(t, p, func(r *Record) {
		want, more = append(want, clone(t, r)), append(more, r.More)
		if err := rec.Write(r); err != nil {
			t.Fatal(err)
		}
	})
	if len(want) == 0 {
		t.Fatal("no samples")
	}
	if first := slices.Index(more, false); first != len(more)-1 {
		t.Errorf("record %d of %d is told to be the last", first, len(more))
	}
	replay := NewReplay(&file)
	for i := range want {
		var got Record
		if err := replay.Read(&got, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want[i], got, cmpopts.IgnoreUnexported(Record{}), cmpopts.IgnoreFields(Record{}, "More")); d != "" {
			t.Fatalf("record %d: %s", i, d)
		}
		if i == 0 && !got.More || i == len(want)-1 && got.More {
			t.Errorf("record %d of %d: another one is there: %v", i, len(want), got.More)
		}
	}
	if err := replay.Read(&Record{}, time.Time{}); !errors.Is(err, ErrFlushed) {
		t.Errorf("error %v at the end", err)
	}
}

// clone makes a copy that the next Read does not change.
func clone(t *testing.T, r *Record) (c Record) {
	t.Helper()
	if err := c.Decode(bytesOf(r.words...)); err != nil {
		t.Fatal(err)
	}
	return c
}

func recorded(t testing.TB, records ...[]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	rec := NewRecorder(&file)
	for _, b := range records {
		var r Record
		if err := errors.Join(r.Decode(b), rec.Write(&r)); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

// TestReplayRefuses: a replay that ends within a record, or claims an impossible one, is an error, not an end.
func TestReplayRefuses(t *testing.T) {
	whole := recorded(t, sampleWithLabel())
	for n := 1; n < len(whole); n++ {
		if err := NewReplay(bytes.NewReader(whole[:n])).Read(&Record{}, time.Time{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: error %v", n, len(whole), err)
		}
	}
	if err := NewReplay(bytes.NewReader([]byte{0, 0, 0, 0xff})).Read(&Record{}, time.Time{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("4 GB: error %v", err)
	}
}

// TestSetProcess: a record that was given to another process is that also after it was recorded, and otherwise the same.
func TestSetProcess(t *testing.T) {
	var r, got Record
	if err := r.Decode(sampleWithLabel()); err != nil {
		t.Fatal(err)
	}
	want := clone(t, &r)
	want.PID, want.StartTime = 5_000_000, 1<<40
	r.SetProcess(want.PID, want.StartTime)
	var file bytes.Buffer
	if err := errors.Join(NewRecorder(&file).Write(&r), NewReplay(&file).Read(&got, time.Time{})); err != nil {
		t.Fatal(err)
	}
	for _, have := range []Record{r, got} {
		if d := cmp.Diff(want, have, cmpopts.IgnoreUnexported(Record{})); d != "" {
			t.Error(d)
		}
	}
}

// FuzzReplay: what a replay accepts can be recorded again and is the same.
func FuzzReplay(f *testing.F) {
	f.Add(recorded(f, sampleWithLabel(), bytesOf(2|42<<32, 7)))
	f.Add([]byte{16, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		var again bytes.Buffer
		rec, replay := NewRecorder(&again), NewReplay(bytes.NewReader(b))
		var err error
		for err == nil {
			if err = replay.Read(&r, time.Time{}); err == nil {
				if err := rec.Write(&r); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !bytes.HasPrefix(b, again.Bytes()) {
			t.Errorf("%x was recorded again as %x", b, again.Bytes())
		}
	})
}
