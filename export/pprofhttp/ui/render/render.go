// Package render draws pages of pprof's own web UI, each in a process of its own that lives as long as that takes.
//
// google/pprof's driver is made for one user's command line: its configuration belongs to the process, it reads and writes a file
// of settings in the user's home on every page, looks for binaries by names that a profile has, runs dot, and panics where it does
// not know better. Here it gets a process (Child) that sees one profile and draws one page: what it may open, read and use up is
// bounded, it has nobody's rights where the agent can give up its own, and nothing of one page is left for the next.
package render

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Views of a profile. What else the driver has (source, disasm, saveconfig, deleteconfig) opens files that the profile names, or
// keeps settings: it is never called.
const (
	Flamegraph = "flamegraph"
	Graph      = "graph" // needs Dot
	Top        = "top"
	Peek       = "peek"
	Download   = "download" // the profile itself, as pprof
)

// scripts are how many scripts a view's page has.
var scripts = map[string]int{Flamegraph: 3, Graph: 2, Top: 2, Peek: 2, Download: 0}

// Known says whether there is such a view.
func Known(view string) bool {
	_, ok := scripts[view]
	return ok
}

// Dot is the path of graphviz's program, which graphs are laid out by, or an error that says what to do.
func Dot() (string, error) {
	path, err := exec.LookPath("dot")
	if err != nil {
		return "", fmt.Errorf("graphs are laid out by dot, which is not on this host: install graphviz (%w)", err)
	}
	return filepath.Abs(path)
}

// Order says what to draw.
type Order struct {
	View    string
	Query   string // of the URL, as the driver takes it
	Nonce   string // that the page's scripts are to have: letters and digits
	Head    string // HTML for the end of the page's head
	Body    string // HTML for the beginning of its body
	Profile []byte `json:"-"` // pprof, with or without gzip
	Base    []byte `json:"-"` // what to compare with; nil: nothing
}

// order is an Order on its way: it stands in the first line, and what it counts comes behind.
type order struct {
	Order
	ProfileSize, BaseSize int
}

// Page is what the driver has answered.
type Page struct {
	Status int
	Type   string
	Body   []byte `json:"-"`
}

// What a page may cost.
const (
	maxPage   = 16 << 20         // bytes of HTML
	maxMemory = 320 << 20        // bytes of the process
	maxCPU    = 20               // seconds, of the process and of dot each
	maxTime   = 40 * time.Second // until it is there
	maxAtOnce = 1                // pages
	maxWait   = 20 * time.Second // for others to end
	maxTold   = 2 << 10          // bytes of a failure's text
)

// ErrBusy says that there are too many pages under way.
var ErrBusy = errors.New("other pages are being drawn: try again in a moment")

// ErrTooLarge says that a page needed more than it may.
var ErrTooLarge = fmt.Errorf("the page needs more than %d MiB of memory, %d s or %d MiB of HTML: download the profile, and look at it with go tool pprof",
	maxMemory>>20, maxCPU, maxPage>>20)

// Renderer draws pages. It is safe for concurrent use.
type Renderer struct {
	command []string
	slots   chan struct{}
}

// New has pages drawn by processes that command starts: a program with its arguments that calls Child.
func New(command ...string) *Renderer {
	return &Renderer{command: command, slots: make(chan struct{}, maxAtOnce)}
}

// Draw draws one page.
func (r *Renderer) Draw(ctx context.Context, o Order) (*Page, error) {
	if !Known(o.View) {
		return nil, fmt.Errorf("there is no view %q", o.View)
	}
	wait, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-wait.Done():
		return nil, ErrBusy
	}
	ctx, cancel = context.WithTimeout(ctx, maxTime)
	defer cancel()
	head, err := json.Marshal(order{o, len(o.Profile), len(o.Base)})
	if err != nil {
		return nil, err
	}
	out, told, err := r.run(ctx, o.View, [][]byte{head, []byte("\n"), o.Profile, o.Base})
	if err != nil {
		return nil, err
	}
	p, err := parse(out)
	if err == nil && p.Status == http.StatusNotImplemented { // pprof takes it for missing
		p.Body = []byte("dot could not lay out the graph: " + told)
	}
	return p, err
}

// run starts the process: as nobody, if that may be.
func (r *Renderer) run(ctx context.Context, view string, in [][]byte) (out []byte, told string, err error) {
	out, told, err = r.once(ctx, view, in, true)
	if errors.Is(err, errNotStarted) && ctx.Err() == nil {
		out, told, err = r.once(ctx, view, in, false)
	}
	return out, told, err
}

var errNotStarted = errors.New("the process that draws pages cannot be started")

func (r *Renderer) once(ctx context.Context, view string, in [][]byte, asNobody bool) (page []byte, told string, err error) {
	cmd := exec.CommandContext(ctx, r.command[0], r.command[1:]...)
	cmd.Env, cmd.Dir = environment(view), "/"
	confine(cmd, asNobody)
	cmd.WaitDelay = time.Second
	readers := make([]io.Reader, 0, len(in))
	for _, b := range in {
		readers = append(readers, bytes.NewReader(b))
	}
	stdout, stderr := &bounded{most: maxPage + 1<<10}, &bounded{most: maxTold, cut: true}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.MultiReader(readers...), stdout, stderr
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("%w: %w", errNotStarted, err)
	}
	err = cmd.Wait()
	told = firstLine(stderr.b)
	switch {
	case err == nil:
		return stdout.b, told, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, told, ctx.Err()
	case ctx.Err() != nil, errors.Is(err, errFull), exhausted(err, stderr.b):
		return nil, told, ErrTooLarge
	}
	return nil, told, fmt.Errorf("pprof's driver could not draw the page: %w: %s", err, told)
}

// environment is all that the process has of ours: where dot is. The driver makes directories and files below the user's home:
// there is none.
func environment(view string) []string {
	env := []string{
		"XDG_CONFIG_HOME=/dev/null", "HOME=/dev/null", "TMPDIR=/dev/null", "PPROF_TMPDIR=/dev/null", "PPROF_BINARY_PATH=/dev/null",
		"TZ=UTC", "LANG=C.UTF-8", "GOMAXPROCS=1", "PPROFD=off",
		"SERVER_NAME=pprofd", // graphviz opens no file that its input names where this is set, and GV_FILE_PATH is not
	}
	if dot, err := Dot(); view == Graph && err == nil {
		env = append(env, "PATH="+filepath.Dir(dot))
	}
	return env
}

// exhausted says whether a process has ended because it met a limit.
func exhausted(err error, told []byte) bool {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return slices.Contains([]syscall.Signal{syscall.SIGKILL, syscall.SIGXCPU}, s.Signal())
		}
	}
	text := string(told)
	return strings.Contains(text, "out of memory") || strings.Contains(text, "cannot allocate memory") || strings.Contains(text, "stack exceeds")
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return strings.ToValidUTF8(line, "\uFFFD")
}

// parse reads what Child has written.
func parse(out []byte) (*Page, error) {
	head, body, _ := bytes.Cut(out, []byte("\n"))
	p := &Page{}
	if err := json.Unmarshal(head, p); err != nil {
		return nil, fmt.Errorf("pprof's driver has written no page: %w", err)
	}
	p.Body = body
	return p, nil
}

var errFull = errors.New("that is too much")

// bounded takes so many bytes, and no more.
type bounded struct {
	b    []byte
	most int
	cut  bool // what is too much is left out; else it is an error
}

func (w *bounded) Write(b []byte) (int, error) {
	if room := w.most - len(w.b); len(b) > room {
		if !w.cut {
			return 0, errFull
		}
		w.b = append(w.b, b[:room]...)
		return len(b), nil
	}
	w.b = append(w.b, b...)
	return len(b), nil
}

// Child is the process that Renderer starts: it reads an order from in and writes a page to out.
func Child(in io.Reader, out io.Writer) error {
	if err := limit(); err != nil {
		return fmt.Errorf("bound what a page may cost: %w", err)
	}
	r := bufio.NewReader(in)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("this is for pprofd's own use: %w", err)
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("this is for pprofd's own use: %w", err)
	}
	if !Known(o.View) || min(o.ProfileSize, o.BaseSize) < 0 || max(o.ProfileSize, o.BaseSize) > maxMemory {
		return fmt.Errorf("there is no such page: %q of %d bytes", o.View, o.ProfileSize)
	}
	rest := make([]byte, o.ProfileSize+o.BaseSize)
	if _, err := io.ReadFull(r, rest); err != nil {
		return fmt.Errorf("read the profile: %w", err)
	}
	o.Profile, o.Base = rest[:o.ProfileSize], rest[o.ProfileSize:]
	if o.View != Graph { // dot has to be started, and reads its own files
		if err := openNothing(); err != nil {
			return fmt.Errorf("be kept from opening files: %w", err)
		}
	}
	page, err := draw(o.Order)
	if err != nil {
		return err
	}
	head, err := json.Marshal(page)
	if err != nil {
		return err
	}
	_, err = out.Write(slices.Concat(head, []byte("\n"), page.Body))
	return err
}

// Arg is the argument that Program's command has.
const Arg = "__render"

// Program is the command for New of a program that calls Child when its one argument is Arg: this program.
func Program() []string {
	if _, err := os.Stat(self); err == nil {
		return []string{self, Arg} // also where the file has been replaced
	}
	path, _ := os.Executable()
	return []string{path, Arg}
}

const self = "/proc/self/exe"
