package goruntime

import (
	"debug/dwarf"
	"errors"
	"fmt"

	"github.com/pprofd/pprofd/objfile"
)

// GoroutineOffsets are byte offsets of further fields of runtime.g, which tell what a goroutine does and waits for; source:
// runtime/runtime2.go of each Go version. 0: there is no such field.
type GoroutineOffsets struct {
	GStackTop                  uint32 // stktopsp: what SP is before the goroutine's first function is called
	GWaitSince, GWaitReason    uint32
	GParentGoid                uint32 // since Go 1.21
	GGoPC, GStartPC            uint32
	GLockedM                   uint32
	GTrackingSeq               uint32 // counts how often it has stopped running, but since Go 1.26 not for system calls; one byte
	GBubble                    uint32 // *synctestBubble since Go 1.25, *synctestGroup in Go 1.24
	GSig, GSigCode, GSigAddr   uint32 // sig, sigcode0, sigcode1: the signal that it panics for
	MSyscallTick               uint32 // of runtime.m: another number after each system call
	BubbleID, BubbleRoot, GEnd uint32 // its id since Go 1.25; *g, whose id it is, in Go 1.24; the size of a g up to what is read of it
}

// goroutineRow are the offsets in one Go minor version; generated from DWARF into goroutine_table.go.
type goroutineRow struct {
	minor int
	off   GoroutineOffsets
}

// GoroutineFromDWARF reads the layout of runtime.g, and of the bubbles of package testing/synctest where there are any.
func GoroutineFromDWARF(d *dwarf.Data) (GoroutineOffsets, error) {
	structs, err := findStructs(d, map[string]bool{"runtime.g": true, "runtime.m": true})
	if err != nil {
		return GoroutineOffsets{}, err
	}
	g := structs["runtime.g"]
	o := GoroutineOffsets{
		GStackTop: g["stktopsp"], GWaitSince: g["waitsince"], GWaitReason: g["waitreason"], GParentGoid: g["parentGoid"],
		GGoPC: g["gopc"], GStartPC: g["startpc"], GLockedM: g["lockedm"], GTrackingSeq: g["trackingSeq"], GBubble: g["bubble"],
		GSig: g["sig"], GSigCode: g["sigcode0"], GSigAddr: g["sigcode1"],
		MSyscallTick: structs["runtime.m"]["syscalltick"],
	}
	bubble := "runtime.synctestBubble"
	if o.GBubble == 0 {
		o.GBubble, bubble = g["syncGroup"], "runtime.synctestGroup"
	}
	if o.GBubble != 0 {
		if structs, err = findStructs(d, map[string]bool{bubble: true}); err != nil {
			return o, err
		}
		if o.BubbleID = structs[bubble]["id"]; o.BubbleID == 0 {
			o.BubbleRoot = structs[bubble]["root"]
		}
	}
	if o.GStackTop == 0 || o.GWaitSince == 0 || o.GWaitReason == 0 || o.GGoPC == 0 || o.GStartPC == 0 || o.GLockedM == 0 {
		return o, errors.New("DWARF: runtime.g lacks expected members")
	}
	o.GEnd = o.end(g["labels"])
	return o, nil
}

// end is where what is read of a g ends.
func (o *GoroutineOffsets) end(labels uint32) uint32 {
	return (max(o.GStackTop, o.GWaitSince, o.GWaitReason, o.GParentGoid, o.GGoPC, o.GStartPC, o.GLockedM, o.GTrackingSeq, o.GBubble, o.GSig, o.GSigCode, o.GSigAddr, labels) + 8 + 7) &^ 7
}

// goroutineOffsets are those of the program's version, as l was found: from the table, from DWARF, or, like l, from the newest row.
func goroutineOffsets(f *objfile.File, rel release, l *Layout) (GoroutineOffsets, error) {
	rows := goroutineTable()
	for _, r := range rows {
		if r.minor == rel.minor && l.Source != sourceDWARF {
			return r.off, nil
		}
	}
	off, err := goroutinesFromFile(f)
	if err == nil {
		return off, nil
	}
	if l.Unproven {
		return rows[len(rows)-1].off, nil
	}
	return off, fmt.Errorf("how it lays out goroutines is unknown, and there is no DWARF that says so: %w", err)
}

// goroutinesFromFile is GoroutineFromDWARF for a file.
func goroutinesFromFile(f *objfile.File) (GoroutineOffsets, error) {
	u, err := openUnits(f)
	if err != nil {
		return GoroutineOffsets{}, err
	}
	return inUnits(u, GoroutineFromDWARF)
}
