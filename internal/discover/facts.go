package discover

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pprofd/pprofd/internal/procfs"
)

// optOut is the variable by which a program says that it does not want to be profiled.
const (
	optOutName  = "PPROFD"
	optOutValue = "off"
)

// facts is what is known of a process that runs a Go program. It does not change: what is read anew makes new facts.
type facts struct {
	key      Proc
	id       fileID
	comm     string
	exe      string
	deleted  bool
	program  *Program
	uid      uint32 // effective
	user     string
	group    group
	cmdline  []string
	optedOut bool
}

// values are those of a term's key, of which any may match; none where the process has no such thing. They are incomplete
// as long as metadata has not come.
func (k *known) values(t *term) (v []string, complete bool) {
	f, complete := k.facts, true
	switch t.key {
	case keyExe:
		v = []string{f.exe}
	case keyComm:
		v = []string{f.comm}
	case keyPID:
		v = []string{strconv.Itoa(f.key.PID)}
	case keyCgroup:
		v = []string{f.group.path}
	case keyUnit:
		v = []string{f.group.unit}
	case keyModule:
		v = []string{f.program.Module}
	case keyUser:
		v = []string{f.user, strconv.FormatUint(uint64(f.uid), 10)}
	case keyContainer:
		v, complete = []string{f.group.containerID, k.container.Name}, !k.waiting
	case keyPod:
		v, complete = []string{k.pod.Name}, !k.waiting
	case keyNamespace:
		v, complete = []string{k.pod.Namespace}, !k.waiting
	case labelPrefix:
		value, ok := k.pod.Labels[t.label]
		if ok && value == "" { // a label without a value is there all the same
			return []string{""}, true
		}
		v, complete = []string{value}, !k.waiting
	}
	return present(v), complete
}

// present leaves out what the process does not have.
func present(v []string) []string {
	var p []string
	for _, s := range v {
		if s != "" {
			p = append(p, s)
		}
	}
	return p
}

// known is everything that a decision is made of.
type known struct {
	*facts
	container Container
	pod       Pod
	waiting   bool // for metadata that is on the way
}

// errOther says that another process has the PID now, or executes another program.
var errOther = fmt.Errorf("another process, or program, has the PID now: %w", os.ErrNotExist)

// readFacts reads what there is to know of a process, and finishes the look. Process and file were looked up just now.
func (d *Discovery) readFacts(l *look) {
	proc := d.in.Proc(l.key.PID)
	f, before, err := d.firstFacts(proc, l)
	if err == nil && f.program.goes() {
		late := time.AfterFunc(procfs.Patience, func() {
			d.finish(l, nil, fmt.Errorf("read environment and command line of process %d: no answer in %v: %w", l.key.PID, procfs.Patience,
				os.ErrDeadlineExceeded))
		})
		err = f.readRest(proc)
		late.Stop()
		f.user = d.users.name(f.uid)
	}
	if err == nil {
		err = f.same(proc, before)
	}
	d.finish(l, f, err)
}

// firstFacts are those that nobody can make us wait for, and which executable it is. What is read in all is of one process and program,
// or the error is errOther.
func (d *Discovery) firstFacts(proc procfs.Proc, l *look) (*facts, procfs.Stat, error) {
	before, err := proc.Stat()
	if err == nil && before.StartTime != l.key.Start {
		err = errOther
	}
	if err != nil {
		return nil, before, err
	}
	p, err := d.in.lookAt(proc, before, l.id)
	if err != nil {
		return nil, before, err
	}
	return &facts{key: l.key, uid: l.uid, id: l.id, comm: p.Comm, exe: p.Exe, deleted: p.Deleted, program: p.Program}, before, nil
}

func (f *facts) readRest(proc procfs.Proc) error {
	groups, err := proc.Cgroups()
	if err != nil && !errors.Is(err, procfs.ErrFormat) && !errors.Is(err, os.ErrNotExist) { // a kernel may have none
		return err
	}
	f.group = groupOf(groups)
	var value string
	value, f.cmdline, err = proc.Beginning(optOutName)
	f.optedOut = value == optOutValue
	return err
}

// same makes sure that the process is the one that it was, and still runs the same program: exec begins a new stack.
func (f *facts) same(proc procfs.Proc, before procfs.Stat) error {
	after, err := proc.Stat()
	if err != nil {
		return err
	}
	if after.StartTime != before.StartTime || after.StartStack != before.StartStack {
		return errOther
	}
	id, err := identify(proc)
	if err == nil && id != f.id {
		err = errOther
	}
	return err
}

const maxCommandLine = 4 << 10

// command is the command line, as far as a label holds it.
func (f *facts) command() string {
	var b strings.Builder
	for i, arg := range f.cmdline {
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.WriteString(arg); b.Len() > maxCommandLine {
			break
		}
	}
	return b.String()
}
