package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/relabel"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/objfile"
)

// Config says what is wanted, and how it is labeled. The zero value finds all Go processes.
type Config struct {
	ProcRoot string // "" is /proc
	Host     string // value of the label "host"

	Select  []Selector // a process is wanted if it matches any; none: all are
	Exclude []Selector // and none of these

	Relabel []*relabel.Config // of Prometheus: rules that change labels, and drop processes
	Labels  map[string]string // of all processes

	Containers Containers
	Kubernetes Kubernetes

	Log *slog.Logger // nil: nothing is logged
}

// Proc names a process.
type Proc struct {
	PID   int
	Start uint64 // clock ticks since boot, as /proc/PID/stat has it
}

// Discovery knows the Go processes of the machine. All methods may be called at any time by anyone.
type Discovery struct {
	in    *Inspector
	users *users
	meta  metadata
	jobs  jobs
	// budget is for what Look and Scan wait in vain.
	budget budget

	mu      sync.Mutex
	log     *slog.Logger
	asks    sourceConfig
	config  *rules
	sel     []Selector
	exclude []Selector
	epoch   uint64 // grows with each configuration
	ticket  uint64 // of the last look
	entries map[Proc]*entry
	current map[int]*entry // the last of each PID
	again   map[Proc]*recheck
	others  map[int]uint64 // processes that are not Go: the inodes of their directories
	count   counters
}

// entry is a process that runs, or ran, a Go program.
type entry struct {
	*facts
	ticket uint64    // of the look that found it: a later one knows better
	seen   time.Time // first, with this program
	read   time.Time // the facts
	ended  time.Time // zero: it runs the program
	judged
}

// judged is what was decided of a process, and by what.
type judged struct {
	verdict     Verdict
	service     string
	labels      []export.Label
	epoch, meta uint64
	valid       bool
}

// Verdict is what becomes of a Go process.
type Verdict string

// Verdicts. Only Wanted processes are profiled.
const (
	Wanted     Verdict = "wanted"
	Unselected Verdict = "not selected"
	Excluded   Verdict = "excluded"
	OptedOut   Verdict = "opted out" // by PPROFD=off
	Dropped    Verdict = "dropped"   // by relabel_configs
	Obstructed Verdict = "cannot be" // Program.Obstacle says why
	Undecided  Verdict = "undecided" // metadata has not come

)

// recheck is when a process is looked at again.
type recheck struct {
	next time.Time
	wait time.Duration
}

// Bounds of a Discovery.
const (
	maxEntries = 16_384
	maxOthers  = 1 << 20
	// patience is how long Look waits for what it has to read: longer only where somebody makes files or memory stall, or
	// the machine is overloaded. Scan finds what was given up.
	patience     = 50 * time.Millisecond
	scanPatience = 250 * time.Millisecond
	refreshAfter = time.Minute      // facts that may change: the group, the name
	keepEnded    = 10 * time.Minute // an entry that nobody forgets
	// recheckOthers scans see each process once that is not Go, whatever is known of it.
	recheckOthers = 16
	firstRecheck  = time.Second
	maxRecheck    = 10 * time.Minute
)

// New checks the configuration. Nothing is read yet.
func New(c Config) (*Discovery, error) {
	d := &Discovery{
		in: NewInspector(c.ProcRoot), users: newUsers(orElse(c.ProcRoot, "/proc")),
		count:   counters{unread: map[string]uint64{}},
		entries: map[Proc]*entry{}, current: map[int]*entry{}, again: map[Proc]*recheck{}, others: map[int]uint64{},
	}
	if err := d.Reconfigure(c); err != nil {
		return nil, err
	}
	return d, nil
}

// Reconfigure changes everything but ProcRoot. Known processes are judged anew at the next Labels or Scan. After an error
// everything is as it was.
func (d *Discovery) Reconfigure(c Config) error {
	r, err := newRules(&c)
	sources, errSources := newSources(&c)
	if err := errors.Join(err, errSources); err != nil {
		return fmt.Errorf("configure discovery: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if asks := (sourceConfig{strings.Join(c.Containers.Sockets, "\n"), c.Kubernetes}); d.epoch == 0 || asks != d.asks {
		d.asks = asks
		d.meta.setSources(sources)
	}
	d.log = c.Log
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.config, d.sel, d.exclude = r, slices.Clone(c.Select), slices.Clone(c.Exclude)
	d.epoch++
	return nil
}

// sourceConfig is what tells the sources of two configurations apart.
type sourceConfig struct {
	sockets    string
	kubernetes Kubernetes
}

func (d *Discovery) logger() *slog.Logger {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log
}

// Look says whether a process runs a Go program that is wanted. It is asked at each exec of the machine: for an executable
// that is known and not Go it costs one system call. It waits for at most patience; what it cannot tell by then is not
// wanted, until Scan finds it.
func (d *Discovery) Look(pid int, start uint64) bool {
	d.tally(func(c *counters) { c.looks++ })
	key := Proc{pid, start}
	id, err := identify(d.in.Proc(pid))
	if err != nil {
		d.failed(key, err)
		return false
	}
	if p := d.in.known(id); p != nil && p.notGo() {
		d.end(key)
		return false
	}
	d.newProgram(key, id)
	d.study(key, id, patience)
	return d.wanted(key)
}

// NotGo is the file that a process executes, if no process that executes it can be a Go program.
func (d *Discovery) NotGo(pid int) (procfs.FileID, bool) {
	id, err := identify(d.in.Proc(pid))
	if err != nil {
		return fileID{}, false
	}
	p := d.in.known(id)
	return id, p != nil && p.notGo()
}

// newProgram notes that a process runs a program that may be Go's.
func (d *Discovery) newProgram(key Proc, id fileID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.others, key.PID)
	if e := d.entries[key]; e != nil && e.id != id {
		d.endLocked(key)
	}
}

// end notes that a process does not run the program any more that is known of it.
func (d *Discovery) end(key Proc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked(key)
}

func (d *Discovery) endLocked(key Proc) {
	if e := d.entries[key]; e != nil && e.ended.IsZero() {
		e.ended = time.Now()
	}
}

// study reads what is to be known of a process that executes the file id, in the background; it waits for at most as long as given.
func (d *Discovery) study(key Proc, id fileID, wait time.Duration) {
	uid, err := d.in.user(key.PID)
	if err != nil {
		d.failed(key, err)
		return
	}
	if !d.jobs.begin(uid) {
		d.tally(func(c *counters) { c.unread["too many processes take too long to be read"]++ })
		return
	}
	l := look{key: key, id: id, uid: uid}
	d.mu.Lock()
	d.ticket++
	l.ticket = d.ticket
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.readFacts(&l)
	}()
	wait = d.budget.take(wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		d.budget.spend(wait)
		d.tally(func(c *counters) { c.late++ })
	}
}

// look is one at a process.
type look struct {
	key    Proc
	id     fileID // what it executes
	uid    uint32
	ticket uint64
	once   sync.Once
}

// finish ends a look with what it has found, or why it has not. What comes later is not heard.
func (d *Discovery) finish(l *look, f *facts, err error) {
	l.once.Do(func() {
		d.enter(l.key, f, err, l.ticket)
		d.jobs.end(l.uid)
	})
}

// enter stores what a look has found.
func (d *Discovery) enter(key Proc, f *facts, err error, ticket uint64) {
	if err != nil {
		d.failed(key, err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if last := d.current[key.PID]; last != nil && last.key != key && last.ticket < ticket {
		d.endLocked(last.key) // the PID is another's
	}
	if !f.program.goes() && !f.program.bare {
		d.failedLocked(key, f.program.err)
		return
	}
	if !f.program.goes() {
		d.endLocked(key)
		d.laterLocked(key)
		return
	}
	delete(d.again, key)
	delete(d.others, key.PID)
	old := d.entries[key]
	if old != nil && old.ticket > ticket {
		return
	}
	if old == nil && len(d.entries) >= maxEntries {
		d.count.unread[fmt.Sprintf("more than %d Go processes are known", maxEntries)]++
		return
	}
	now := time.Now()
	e := &entry{facts: f, ticket: ticket, seen: now, read: now}
	if old != nil && old.id == f.id {
		e.seen = old.seen
	} else {
		d.count.found++
	}
	d.entries[key], d.current[key.PID] = e, e
}

// laterLocked has a process looked at again, less and less often: it may unpack a Go program, or let itself be read.
func (d *Discovery) laterLocked(key Proc) {
	r := d.again[key]
	if r == nil {
		if len(d.again) >= maxEntries {
			return
		}
		r = &recheck{wait: firstRecheck}
		d.again[key] = r
	}
	r.next = time.Now().Add(r.wait)
	r.wait = min(4*r.wait, maxRecheck)
}

// failed notes that a process is gone, is no Go program, or could not be looked at. What was known of the latter is kept.
func (d *Discovery) failed(key Proc, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failedLocked(key, err)
}

func (d *Discovery) failedLocked(key Proc, err error) {
	if Gone(err) || errors.Is(err, objfile.ErrNotGo) || errors.Is(err, ErrKernelThread) {
		d.endLocked(key)
		return
	}
	d.count.unread[unreadReason(err)]++
	if key.Start != 0 {
		d.laterLocked(key)
	}
}

// unreadReason is one of few: it counts, and is shown.
func unreadReason(err error) string {
	switch {
	case errors.Is(err, os.ErrPermission):
		return "permission denied"
	case errors.Is(err, objfile.ErrFUSE):
		return objfile.ErrFUSE.Error()
	case errors.Is(err, objfile.ErrTooCostly), errors.Is(err, os.ErrDeadlineExceeded):
		return "too costly to read"
	}
	return "other errors"
}

// wanted judges a process that runs now.
func (d *Discovery) wanted(key Proc) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.entries[key]
	return e != nil && e.ended.IsZero() && d.judge(e) == Wanted
}

// Labels are the labels of a process, as far as metadata has come. ok is false where it is not known, or not wanted (any more).
// They describe the last Go program that the process has executed. Neither they nor the service contain the other.
func (d *Discovery) Labels(pid int, start uint64) (service string, labels []export.Label, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.entries[Proc{pid, start}]
	if e == nil || d.judge(e) != Wanted {
		return "", nil, false
	}
	return e.service, e.labels, true
}

// Forget says that nobody will ask for the labels of a process again.
func (d *Discovery) Forget(pid int, start uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removeLocked(Proc{pid, start})
}

func (d *Discovery) removeLocked(key Proc) {
	e := d.entries[key]
	delete(d.entries, key)
	delete(d.again, key)
	if e != nil && d.current[key.PID] == e {
		delete(d.current, key.PID)
	}
}

// judge decides, if what decides has changed since. d.mu is held.
func (d *Discovery) judge(e *entry) Verdict {
	meta := d.meta.state()
	if e.valid && e.epoch == d.epoch && e.judged.meta == meta {
		return e.verdict
	}
	k := &known{facts: e.facts}
	k.container, k.pod, k.waiting = d.meta.find(&e.group, e.seen)
	e.judged = judged{epoch: d.epoch, meta: meta, valid: !k.waiting}
	e.verdict = d.selected(k)
	if e.verdict != Wanted {
		return e.verdict
	}
	var keep bool
	e.service, e.labels, keep = d.config.label(k)
	switch {
	case k.waiting && d.config.drops:
		e.verdict = Undecided
	case !keep:
		e.verdict = Dropped
	}
	return e.verdict
}

func (d *Discovery) selected(k *known) Verdict {
	switch {
	case k.optedOut:
		return OptedOut
	case k.program.Obstacle != "":
		return Obstructed
	}
	in, out := yes, anyMatches(d.exclude, k)
	if len(d.sel) > 0 {
		in = anyMatches(d.sel, k)
	}
	switch {
	case out == yes:
		return Excluded
	case in == no:
		return Unselected
	case in == unknown || out == unknown:
		return Undecided
	}
	return Wanted
}

// Scan lists the Go processes that are wanted and run now. Processes that are known and not Go cost the listing of /proc;
// one in recheckOthers of them is asked each time what it executes now, for an exec that Look was not told of. A Go process
// that is known costs four system calls.
func (d *Discovery) Scan(ctx context.Context) ([]Proc, error) {
	all, err := d.in.list()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.count.scans++
	turn := int(d.count.scans % recheckOthers)
	d.mu.Unlock()
	var found []Proc
	for _, p := range all {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if p.pid%recheckOthers != turn && d.isOther(p) {
			continue
		}
		key, ok := d.visit(p)
		if ok && d.wanted(key) {
			found = append(found, key)
		}
	}
	d.prune(all)
	return found, nil
}

// isOther says that a process is known and not Go.
func (d *Discovery) isOther(p listed) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	inode, ok := d.others[p.pid]
	return ok && inode == p.inode
}

// setOther notes that a process is no Go program, or may be one.
func (d *Discovery) setOther(p listed, other bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !other:
		delete(d.others, p.pid)
	case len(d.others) < maxOthers:
		d.others[p.pid] = p.inode
	}
}

// visit makes sure that what is known of a process is so. ok is false where it runs no Go program.
func (d *Discovery) visit(p listed) (key Proc, ok bool) {
	pid := p.pid
	proc := d.in.Proc(pid)
	id, err := identify(proc)
	d.setOther(p, errors.Is(err, os.ErrNotExist)) // a kernel thread
	if err != nil {
		d.visitFailed(pid, err)
		return Proc{}, false
	}
	if program := d.in.known(id); program != nil && program.notGo() {
		d.setOther(p, true)
		d.endCurrent(pid)
		return Proc{}, false
	}
	start, err := proc.StartTime()
	if err != nil {
		d.visitFailed(pid, err)
		return Proc{}, false
	}
	key = Proc{pid, start}
	if d.due(key, id) {
		d.newProgram(key, id)
		d.study(key, id, scanPatience)
	}
	return key, true
}

// due says whether a process has to be looked at again.
func (d *Discovery) due(key Proc, id fileID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.again[key]; r != nil {
		return time.Now().After(r.next)
	}
	e := d.entries[key]
	return e == nil || e.id != id || !e.ended.IsZero() || time.Since(e.read) > refreshAfter
}

func (d *Discovery) visitFailed(pid int, err error) {
	d.mu.Lock()
	e := d.current[pid]
	d.mu.Unlock()
	key := Proc{PID: pid}
	if e != nil {
		key = e.key
	}
	d.failed(key, err)
}

func (d *Discovery) endCurrent(pid int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.current[pid]; e != nil {
		d.endLocked(e.key)
	}
}

// prune forgets processes that have ended: at once those that nobody profiles, later those that nobody forgot.
func (d *Discovery) prune(running []listed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	isRunning := func(pid int) bool {
		_, runs := slices.BinarySearchFunc(running, pid, func(p listed, pid int) int { return p.pid - pid })
		return runs
	}
	for key, e := range d.entries {
		if (!isRunning(key.PID) || d.current[key.PID] != e) && e.ended.IsZero() {
			e.ended = now
		}
		if !e.ended.IsZero() && (e.verdict != Wanted || now.Sub(e.ended) > keepEnded) {
			d.removeLocked(key)
		}
	}
	maps.DeleteFunc(d.again, func(key Proc, _ *recheck) bool { return !isRunning(key.PID) })
	if len(d.others) > len(running) { // some have ended
		maps.DeleteFunc(d.others, func(pid int, _ uint64) bool { return !isRunning(pid) })
	}
}
