package discover

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

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

// readFacts reads what there is to know of a process, whose user is known. What it reads is of one process and program, or the error is
// errOther.
func (d *Discovery) readFacts(key Proc, uid uint32) (*facts, error) {
	proc := d.in.Proc(key.PID)
	before, err := proc.Stat()
	if err != nil {
		return nil, err
	}
	if before.StartTime != key.Start {
		return nil, errOther
	}
	id, err := identify(proc)
	if err != nil {
		return nil, err
	}
	p, err := d.in.lookAt(proc, before, id)
	if err != nil {
		return nil, err
	}
	f := &facts{key: key, uid: uid, id: id, comm: p.Comm, exe: p.Exe, deleted: p.Deleted, program: p.Program}
	if !f.program.goes() {
		return f, f.same(proc, before)
	}
	if err := f.readRest(proc); err != nil {
		return nil, err
	}
	f.user = d.users.name(f.uid)
	return f, f.same(proc, before)
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
