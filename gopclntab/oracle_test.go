package gopclntab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// everything reports whether to run on all versions, build modes and pcs: some minutes of machine time.
func everything() bool { return os.Getenv("PPROFD_FULL") != "" }

// oracleBuilds are the builds whose every pc is compared.
func oracleBuilds() []testprog.Options {
	builds := []testprog.Options{{Go: "1.18.10"}, {Go: "1.21.13"}, {Go: "1.27.4"}, {}}
	if !everything() {
		return builds
	}
	for _, v := range []string{"1.16.15", "1.17.13", "1.19.13", "1.20.14", "1.22.12", "1.23.12", "1.24.13", "1.25.7"} {
		builds = append(builds, testprog.Options{Go: v})
	}
	for _, v := range []string{"1.18.10", "1.21.13", "1.25.7", "", "1.27.4"} {
		builds = append(builds,
			testprog.Options{Go: v, PIE: true},
			testprog.Options{Go: v, Cgo: true, LDFlags: "-linkmode=external"},
			testprog.Options{Go: v, Cgo: true, LDFlags: "-linkmode=external", PIE: true},
			testprog.Options{Go: v, Flags: []string{"-tags=big", "-trimpath"}})
	}
	return builds
}

// TestOracle compares with what the program's own runtime says of every pc of its text.
func TestOracle(t *testing.T) {
	for _, o := range oracleBuilds() {
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel()
			stride := 1
			if !everything() {
				stride = 3
			}
			p := buildPCs(t, o)
			c := &comparison{t: t, tab: p.table(t), stride: uint64(stride), before121: o.Go != "" && o.Go < "1.21"}
			c.run(p)
			t.Logf("%d pcs of %d functions: %d inlined, %d elided wrappers, %d named by us only, %d last bytes",
				c.pcs, c.tab.nfunc, c.inlined, c.elided, c.unnamed, c.last)
			if c.pcs < 200_000 || c.inlined < 20_000 || !c.before121 && c.elided < 1000 || c.last == 0 {
				t.Error("too few to mean anything")
			}
		})
	}
}

// command is the program's run with a stride.
func (p *program) command(t *testing.T, stride uint64) *exec.Cmd {
	hex := func(n uint64) string { return strconv.FormatUint(n, 16) }
	cmd := exec.CommandContext(t.Context(), p.path, hex(p.Text), hex(p.EText), hex(p.symbols["main.main"]), strconv.FormatUint(stride, 10))
	cmd.Stderr = os.Stderr
	return cmd
}

// A comparison reads the output of target pcs.
type comparison struct {
	t      *testing.T
	tab    *Table
	stride uint64

	before121 bool

	expected []Frame  // by number
	answer   []string // fields of the current R or L line
	pc       uint64   // next to compare
	buf      []Frame

	pcs, inlined, elided, unnamed, last, failed int
}

func (c *comparison) run(p *program) {
	cmd := p.command(c.t, c.stride)
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.read(out)
	if err := cmd.Wait(); err != nil {
		c.t.Fatal(err)
	}
	c.until(p.EText)
}

func (c *comparison) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if frame, ok := strings.CutPrefix(line, "F "); ok {
			c.expected = append(c.expected, c.parseFrame(frame))
			continue
		}
		fields := strings.Fields(line)
		pc, err := strconv.ParseUint(fields[1], 16, 64)
		if err != nil {
			c.t.Fatalf("%q: %v", line, err)
		}
		c.until(pc)
		c.answer, c.pc = fields, pc
	}
	if err := lines.Err(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *comparison) parseFrame(s string) Frame {
	var f Frame
	if _, err := fmt.Sscanf(s, "%q\t%q\t%d\t%d", &f.Func, &f.File, &f.Line, &f.StartLine); err != nil {
		c.t.Fatalf("%q: %v", s, err)
	}
	return f
}

// until compares the current answer with ours for each pc below end.
func (c *comparison) until(end uint64) {
	if c.answer == nil {
		return
	}
	var want []Frame
	for _, id := range c.answer[2:] {
		n, err := strconv.Atoi(id)
		if err != nil {
			c.t.Fatal(err)
		}
		want = append(want, c.expected[n])
	}
	for ; c.pc < end; c.pc += c.stride {
		f, ok := c.tab.Find(c.pc)
		if ok == (c.answer[0] == "N") {
			c.errorf("found: %v, want %q", ok, c.answer)
		}
		if !ok {
			continue
		}
		c.buf = f.AppendFrames(c.buf[:0], c.pc)
		c.pcs++
		if c.answer[0] == "L" {
			c.compareLast(want[0], c.buf[0])
		} else {
			c.compareFrames(want[0], want[1:])
		}
	}
}

// compareLast compares with FuncForPC, which has no start line, and prints "[...]" for what is
// in brackets since Go 1.21 (runtime.funcNameForPrint).
func (c *comparison) compareLast(want, got Frame) {
	c.last++
	i, j := strings.IndexByte(got.Func, '['), strings.LastIndexByte(got.Func, ']')
	if !c.before121 && i >= 0 && i < j {
		got.Func = got.Func[:i] + "[...]" + got.Func[j+1:]
	}
	want.StartLine = got.StartLine
	c.compareFrame("last", want, got)
}

// compareFrames compares with CallersFrames (innermost), and with runtime/pprof's expansion.
func (c *comparison) compareFrames(innermost Frame, expanded []Frame) {
	c.compareFrame("innermost", innermost, c.buf[0])
	c.inlined += len(c.buf) - 1
	shown := c.shown()
	c.elided += len(c.buf) - len(shown)
	if len(shown) != len(expanded) {
		c.errorf("frames: want %+v, got %+v of %+v", expanded, shown, c.buf)
		return
	}
	for i, want := range expanded {
		c.compareFrame("expanded", want, shown[i])
	}
}

// shown returns our frames without elided wrappers, and checks that the flag Inlined is right.
// expandFinalInlineFrame keeps the outermost frame, a wrapper or not, if it is the only one, and
// before Go 1.21 always; TestElision has real stacks.
func (c *comparison) shown() []Frame {
	var shown []Frame
	callee := ""
	for i, f := range c.buf {
		last := i == len(c.buf)-1
		if f.Inlined == last {
			c.errorf("Inlined is wrong in %+v", c.buf)
		}
		if !f.Elided(callee) || last && (i == 0 || c.before121) {
			shown = append(shown, f)
		}
		callee = f.Func
	}
	if len(shown) == 0 { // CallersFrames' answer to an empty stack
		return []Frame{{}}
	}
	return shown
}

// compareFrame compares one frame. The runtime has no name for the function whose name is the first of all.
func (c *comparison) compareFrame(what string, want, got Frame) {
	if want.Func == "" && got.Func != "" {
		c.unnamed++
		want.Func = got.Func
	}
	got.Inlined, got.Wrapper = false, false
	if got != want {
		c.errorf("%s: want %+v, got %+v", what, want, got)
	}
}

func (c *comparison) errorf(format string, args ...any) {
	if c.failed++; c.failed > 20 {
		c.t.FailNow()
	}
	c.t.Errorf("pc %#x: %s", c.pc, fmt.Sprintf(format, args...))
}
