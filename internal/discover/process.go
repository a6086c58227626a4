package discover

import "github.com/pprofd/pprofd/export"

// Labels are those that a process has by itself, and its service. What it is a part of (control group, container, pod) is not asked.
func (p *Process) Labels(host string) (service string, labels []export.Label) {
	k := &known{facts: &facts{key: Proc{PID: p.PID, Start: p.Start}, comm: p.Comm, exe: p.Exe, program: p.Program}}
	service, labels, _ = (&rules{host: clean(host)}).label(k)
	return service, labels
}
