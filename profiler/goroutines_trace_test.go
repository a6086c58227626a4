//go:build linux

package profiler

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// trace is a goroutine as the runtime prints it (runtime/traceback.go).
type trace struct {
	goid    uint64
	state   string // or the reason why it waits
	minutes int
	locked  bool
	bubble  uint64
	frames  []traceFrame
	elided  int // index in frames where some are left out; -1: nowhere
	creator traceFrame
	parent  uint64

	unavailable bool // it ran, and nobody has asked its thread
}

type traceFrame struct {
	name, file string
	line       int
}

var (
	traceHeader  = regexp.MustCompile(`^goroutine (\d+) (?:gp=\S+ m=\S+ (?:mp=\S+ )?)?\[([^\]]*)\](?: \{.*\})?:$`)
	traceFile    = regexp.MustCompile(`^\t(.*):(\d+)(?: .*)?$`)
	traceCreator = regexp.MustCompile(`^created by (.*?)(?: in goroutine (\d+))?$`)
)

// readTraces reads what the runtime says of all goroutines: /debug/pprof/goroutine?debug=2, or what it prints at a SIGQUIT.
func readTraces(r io.Reader) map[uint64]*trace {
	all := make(map[uint64]*trace)
	var tr *trace
	var frame *traceFrame
	for sc := bufio.NewScanner(r); sc.Scan(); {
		line := sc.Text()
		switch {
		case line == "":
			tr, frame = nil, nil
		case tr == nil && !traceHeader.MatchString(line): // registers
		case traceHeader.MatchString(line):
			tr = newTrace(traceHeader.FindStringSubmatch(line))
			all[tr.goid] = tr
		case strings.HasPrefix(line, "\t") && frame != nil:
			m := traceFile.FindStringSubmatch(line)
			frame.file = m[1]
			frame.line, _ = strconv.Atoi(m[2])
		case strings.HasPrefix(line, "\t"): // goroutine running on other thread; stack unavailable
			tr.unavailable = true
		case strings.HasPrefix(line, "..."):
			tr.elided = len(tr.frames)
		case strings.HasPrefix(line, "created by "):
			m := traceCreator.FindStringSubmatch(line)
			tr.creator.name = generic(m[1])
			tr.parent, _ = strconv.ParseUint(m[2], 10, 64)
			frame = &tr.creator
		case !strings.Contains(line, "("): // registers
			tr, frame = nil, nil
		default:
			name := line[:strings.LastIndex(line, "(")]
			tr.frames = append(tr.frames, traceFrame{name: generic(name)})
			frame = &tr.frames[len(tr.frames)-1]
		}
	}
	delete(all, 0) // g0
	return all
}

func newTrace(m []string) *trace {
	tr := &trace{elided: -1}
	tr.goid, _ = strconv.ParseUint(m[1], 10, 64)
	words := strings.Split(m[2], ", ")
	tr.state = undurable(strings.TrimSuffix(words[0], " (scan)"))
	for _, word := range words[1:] {
		switch {
		case word == "locked to thread":
			tr.locked = true
		case strings.HasSuffix(word, " minutes"):
			tr.minutes, _ = strconv.Atoi(strings.TrimSuffix(word, " minutes"))
		case strings.HasPrefix(word, "synctest bubble "):
			tr.bubble, _ = strconv.ParseUint(strings.TrimPrefix(word, "synctest bubble "), 10, 64)
		}
	}
	return tr
}

// undurable leaves out what the runtime adds to a reason in bubbles.
func undurable(state string) string { return strings.TrimSuffix(state, " (durable)") }

// generic is a function's name as the runtime prints it: without type arguments.
func generic(name string) string {
	if name == "runtime.gopanic" {
		return "panic"
	}
	i, j := strings.Index(name, "["), strings.LastIndex(name, "]")
	if i < 0 || j < i {
		return name
	}
	return name[:i] + "[...]" + name[j+1:]
}
