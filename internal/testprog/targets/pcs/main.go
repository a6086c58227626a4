// Command pcs prints what its own runtime says about every pc of its own text: the oracle of
// package gopclntab. Arguments: the link-time addresses of runtime.text, runtime.etext and main.main
// in hex, and the stride from one pc to the next in decimal. Stride 0 prints real stacks instead: see stack.
//
// The output is run-length encoded, one line for each pc whose answer differs from that of the one before:
//
//	F name TAB file TAB line TAB start     the next frame number, from 0; quoted with %q
//	R pc frame frame...                    link-time pc in hex; frames as numbers: the innermost frame by
//	                                       CallersFrames, then all by expandFinalInlineFrame, wrappers elided
//	L pc frame                             last byte of a function: the innermost frame by FuncForPC,
//	                                       because CallersFrames looks up pc+1, the next function
//	N pc                                   no function: padding behind the last
package main

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
)

type frame struct {
	name, file  string
	line, start int
}

type printer struct {
	w      *bufio.Writer
	frames map[frame]int
	line   []byte // the last answer printed, without its pc
}

func main() {
	if len(os.Args) != 5 {
		fmt.Println(workload())
		return
	}
	text, etext, anchor := hex(os.Args[1]), hex(os.Args[2]), hex(os.Args[3])
	stride, err := strconv.Atoi(os.Args[4])
	if err != nil {
		panic(err)
	}
	bias := reflect.ValueOf(main).Pointer() - anchor
	if stride == 0 {
		stacks(bias)
		return
	}
	p := &printer{w: bufio.NewWriterSize(os.Stdout, 1<<20), frames: make(map[frame]int)}
	for pc := text; pc < etext; pc += uintptr(stride) {
		p.print(pc, pc+bias)
	}
	if err := p.w.Flush(); err != nil {
		panic(err)
	}
}

func hex(s string) uintptr {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		panic(err)
	}
	return uintptr(n)
}

func (p *printer) print(link, pc uintptr) {
	f, next := runtime.FuncForPC(pc), runtime.FuncForPC(pc+1)
	if f == nil {
		p.answer("N", link, nil)
		return
	}
	kind, ids := "R", [64]int{}
	answer := ids[:0]
	if next == nil || next.Entry() != f.Entry() {
		file, line := f.FileLine(pc)
		kind, answer = "L", append(answer, p.id(frame{f.Name(), file, line, 0}))
	} else {
		answer = append(answer, p.first(pc+1))
		answer = p.expand(answer, pc+1)
	}
	p.answer(kind, link, answer)
}

// first returns the innermost frame of a return address.
func (p *printer) first(ret uintptr) int {
	fr, _ := runtime.CallersFrames([]uintptr{ret}).Next()
	return p.id(toFrame(&fr))
}

// expand appends all frames of a return address.
func (p *printer) expand(dst []int, ret uintptr) []int {
	stack := expandFinalInlineFrame([]uintptr{ret})
	if len(stack) == 0 {
		return dst
	}
	frames := runtime.CallersFrames(stack)
	for {
		fr, more := frames.Next()
		dst = append(dst, p.id(toFrame(&fr)))
		if !more {
			return dst
		}
	}
}

// id returns the number of a frame, which it prints first if it is new.
func (p *printer) id(fr frame) int {
	id, ok := p.frames[fr]
	if !ok {
		id = len(p.frames)
		p.frames[fr] = id
		fmt.Fprintf(p.w, "F %q\t%q\t%d\t%d\n", fr.name, fr.file, fr.line, fr.start)
	}
	return id
}

func (p *printer) answer(kind string, pc uintptr, ids []int) {
	line := make([]byte, 0, 64)
	line = append(line, kind...)
	for _, id := range ids {
		line = append(line, ' ')
		line = strconv.AppendInt(line, int64(id), 10)
	}
	if string(line) == string(p.line) {
		return
	}
	p.line = line
	fmt.Fprintf(p.w, "%s %x%s\n", kind, pc, line[len(kind):])
}
