package discover

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// value is that of a label.
func value(ls []export.Label, name string) string {
	for _, l := range ls {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

func scan(t testing.TB, d *Discovery) []Proc {
	t.Helper()
	found, err := d.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func startOf(t testing.TB, pid int) Proc {
	t.Helper()
	start, err := procfs.New("").Proc(pid).StartTime()
	if err != nil {
		t.Fatal(err)
	}
	return Proc{pid, start}
}

// TestRealProcesses: what the go command and the kernel say of processes is what discovery says.
func TestRealProcesses(t *testing.T) {
	d, err := New(Config{Host: "here"})
	if err != nil {
		t.Fatal(err)
	}
	path := testprog.Build(t, "spin", testprog.Options{Strip: true})
	p := testprog.Start(t, path, "-threads=1", "-seconds=60")
	sleep := exec.CommandContext(t.Context(), needs.Tool(t, "sleep"), "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { sleep.Process.Kill(); _ = sleep.Wait() }()
	key := startOf(t, p.PID)
	if d.Look(sleep.Process.Pid, startOf(t, sleep.Process.Pid).Start) || !d.Look(p.PID, key.Start) || d.Look(p.PID, key.Start-1) {
		t.Error("Look is wrong")
	}
	if found := scan(t, d); !slices.Contains(found, key) || slices.ContainsFunc(found, func(p Proc) bool { return p.PID == sleep.Process.Pid }) {
		t.Errorf("%v, without %v", found, key)
	}
	service, ls, ok := d.Labels(p.PID, key.Start)
	version, err := exec.CommandContext(t.Context(), needs.Tool(t, "go"), "version", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"pid": fmt.Sprint(p.PID), "exe": path, "comm": "spin", "host": "here", "module": "targets", "module_version": "(devel)",
		"go_version": strings.TrimSpace(strings.TrimPrefix(string(version), path+": ")), "service_name": "",
	} {
		if got := value(ls, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if value(ls, "systemd_unit")+value(ls, "container_id") == "" && service != "spin" || !ok {
		t.Errorf("service %q, %v; %v", service, ok, ls)
	}
	p.Stop()
	if found := scan(t, d); slices.Contains(found, key) {
		t.Error("it has ended, and is found")
	}
	if _, _, ok := d.Labels(key.PID, key.Start); !ok {
		t.Error("the last profile has no labels")
	}
	d.Forget(key.PID, key.Start)
	if _, _, ok := d.Labels(key.PID, key.Start); ok {
		t.Error("it is not forgotten")
	}
}

func TestOptOut(t *testing.T) {
	d, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for env, want := range map[string]bool{"PPROFD=off": false, "PPROFD=on": true, "PPROFD=": true, "XPPROFD=off": true} {
		p := testprog.StartWith(t, testprog.StartOptions{Env: []string{env}}, spin(t), "-threads=1", "-seconds=60")
		key := startOf(t, p.PID)
		if got := d.Look(p.PID, key.Start); got != want || slices.Contains(scan(t, d), key) != want {
			t.Errorf("%s: %v", env, got)
		}
		i := slices.IndexFunc(d.List(), func(i Info) bool { return i.Proc == key })
		if i < 0 || (d.List()[i].Verdict == OptedOut) == want {
			t.Errorf("%s: %+v", env, d.List())
		}
		p.Stop()
	}
}

// TestExec: the same process becomes a Go program, and another one.
func TestExec(t *testing.T) {
	d, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), needs.Tool(t, "sh"), "-c", `read x; exec "$0" -threads=1 -seconds=60`, spin(t))
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); _ = cmd.Wait() }()
	key := startOf(t, cmd.Process.Pid)
	if d.Look(key.PID, key.Start) || slices.Contains(scan(t, d), key) {
		t.Error("the shell is no Go program")
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if !d.Look(key.PID, key.Start) || !slices.Contains(scan(t, d), key) {
		t.Error("the program that it executes is one")
	}
}

// TestReusedPID: a PID is never asked for alone.
func TestReusedPID(t *testing.T) {
	m := newMachine(t)
	d := m.discovery(Config{})
	first := m.spawn(fake{pid: 7, start: 100, comm: "first", exe: spin(t)})
	if !d.Look(7, 100) || d.Look(7, 99) {
		t.Fatal("Look is wrong")
	}
	second := m.spawn(fake{pid: 7, start: 200, comm: "second", exe: spin(t)})
	if d.Look(7, 100) {
		t.Error("the first has ended")
	}
	if got := scan(t, d); !slices.Equal(got, []Proc{second}) {
		t.Errorf("%v", got)
	}
	for key, want := range map[Proc]string{first: "first", second: "second"} {
		if _, ls, ok := d.Labels(key.PID, key.Start); !ok || value(ls, "comm") != want {
			t.Errorf("%v: %v, %v", key, ls, ok)
		}
	}
	d.Forget(7, 100)
	if _, _, ok := d.Labels(7, 200); !ok || len(d.List()) != 1 {
		t.Error("the second is forgotten with the first")
	}
	m.spawn(fake{pid: 7, start: 300, comm: "third", exe: notGo(t)})
	if got := scan(t, d); len(got) > 0 || len(d.List()) > 0 {
		t.Errorf("%v, %v", got, d.List())
	}
	if _, _, ok := d.Labels(7, 200); !ok {
		t.Error("the second's last profile has no labels")
	}
	m.kill(7)
	if got := scan(t, d); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

func TestLabels(t *testing.T) {
	m := newMachine(t)
	under := strings.ReplaceAll(uid, "-", "_")
	pod := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id1 + ".scope"
	m.spawn(fake{pid: 7, start: 1, comm: "a\xffb", exe: spin(t), uid: 33, cgroup: "/system.slice/web.service"})
	m.spawn(fake{pid: 8, start: 1, comm: "b", exe: spin(t), uid: 44, cgroup: pod})
	d := m.discovery(Config{Host: "h", Labels: map[string]string{"zone": "z", "user": "nobody"}})
	if got := scan(t, d); len(got) != 2 {
		t.Fatalf("%v", got)
	}
	service, ls, ok := d.Labels(7, 1)
	want := []export.Label{
		{Name: "cgroup", Value: "/system.slice/web.service"}, {Name: "comm", Value: "a\uFFFDb"}, {Name: "exe", Value: spin(t)},
		{Name: "go_version", Value: value(ls, "go_version")}, {Name: "host", Value: "h"}, {Name: "module", Value: "targets"},
		{Name: "module_version", Value: "(devel)"}, {Name: "pid", Value: "7"}, {Name: "systemd_unit", Value: "web.service"},
		{Name: "user", Value: "nobody"}, {Name: "zone", Value: "z"},
	}
	if diff := cmp.Diff(want, ls); service != "web" || !ok || diff != "" {
		t.Errorf("%s, %v\n%s", service, ok, diff)
	}
	c := &source{name: "test", answered: time.Now().Add(time.Hour), last: newSnapshot()}
	c.last.addContainer(id1, Container{Name: "shop", Image: "img:1"})
	c.last.addPod(Pod{UID: uid, Name: "shop-0", Namespace: "prod", Labels: map[string]string{"app.kubernetes.io/name": "x", "app-kubernetes-io/name": "y"}})
	d.meta.setSources([]*source{c})
	service, ls, ok = d.Labels(8, 1)
	for name, want := range map[string]string{
		"container_id": id1, "container_name": "shop", "container_image": "img:1", "pod": "shop-0", "namespace": "prod",
		"pod_label_app_kubernetes_io_name": "y", "systemd_unit": "",
	} {
		if got := value(ls, name); got != want || !ok {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if service != "shop" || !slices.IsSortedFunc(ls, func(a, b export.Label) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("service %q, %v", service, ls)
	}
}

func TestServiceName(t *testing.T) {
	f := func(unit, pkg, module string) *known {
		return &known{facts: &facts{comm: "comm", group: group{unit: unit}, program: &Program{Package: pkg, Module: module}}}
	}
	for want, k := range map[string]*known{
		"web@1":  f("web@1.service", "a/b", "a"),
		"pprofd": f("", "github.com/x/y/cmd/pprofd", "github.com/x/y"),
		"tool":   f("", "example.com/tool/v2", "example.com/tool/v2"),
		"vault":  f("", "example.com/vault", ""),
		"mod":    f("", "command-line-arguments", "example.com/mod/v10"),
		"v2":     f("", "v2", ""),
		"comm":   f("", "", ""),
	} {
		if got := serviceName(k); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestSelection: rules change while processes run.
func TestSelection(t *testing.T) {
	m := newMachine(t)
	m.spawn(fake{pid: 7, start: 1, comm: "web", exe: spin(t), uid: 33})
	m.spawn(fake{pid: 8, start: 1, comm: "db", exe: spin(t), uid: 0})
	m.spawn(fake{pid: 9, start: 1, comm: "sh", exe: notGo(t), uid: 0})
	d := m.discovery(Config{})
	for _, c := range []struct {
		sel, exclude []string
		want         []Proc
	}{
		{nil, nil, []Proc{{7, 1}, {8, 1}}},
		{[]string{"comm=web"}, nil, []Proc{{7, 1}}},
		{[]string{"comm=web", "user=root"}, nil, []Proc{{7, 1}, {8, 1}}},
		{[]string{"comm=web user=root"}, nil, nil},
		{nil, []string{"user=www-data"}, []Proc{{8, 1}}},
		{[]string{"comm=*b*"}, []string{"pid=8"}, []Proc{{7, 1}}},
		{nil, []string{"pid=7", "pid=8"}, nil},
	} {
		if err := d.Reconfigure(Config{Select: selectors(t, c.sel...), Exclude: selectors(t, c.exclude...)}); err != nil {
			t.Fatal(err)
		}
		got := scan(t, d)
		if !slices.Equal(got, c.want) {
			t.Errorf("select %q, exclude %q: %v, want %v", c.sel, c.exclude, got, c.want)
		}
		for _, pid := range []int{7, 8, 9} {
			_, _, ok := d.Labels(pid, 1)
			if want := slices.Contains(c.want, Proc{pid, 1}); ok != want || d.Look(pid, 1) != want {
				t.Errorf("select %q, exclude %q: %d is wrong", c.sel, c.exclude, pid)
			}
		}
	}
	if s := d.Stats(); s.Processes[Excluded] != 2 || s.Looks == 0 || s.Scans != 7 || s.Found != 2 || s.Programs != 2 || len(s.Unreadable) > 0 {
		t.Errorf("%+v", s)
	}
}

// TestWaitingForMetadata: what is not known yet is not profiled, and found once it is known.
func TestWaitingForMetadata(t *testing.T) {
	m := newMachine(t)
	m.spawn(fake{pid: 7, start: 1, comm: "in", exe: spin(t), cgroup: "/docker/" + id1})
	m.spawn(fake{pid: 8, start: 1, comm: "out", exe: spin(t)})
	d := m.discovery(Config{Select: selectors(t, "container!=web*")})
	if got := scan(t, d); !slices.Equal(got, []Proc{{7, 1}, {8, 1}}) {
		t.Errorf("nobody could know more: %v", got)
	}
	for _, c := range []struct {
		name   string
		source source
		want   bool
		found  Verdict
	}{
		{"has not answered", source{}, false, Undecided},
		{"is not there", source{absent: true}, true, Wanted},
		{"answered too early to be sure", source{answered: time.Now()}, false, Undecided},
		{"does not know it", source{answered: time.Now().Add(time.Minute)}, true, Wanted},
		{"knows it", source{last: snapshotOf(id1, "web")}, false, Unselected},
		{"knows another", source{last: snapshotOf(id2, "web")}, false, Undecided},
		{"knows it by another name", source{last: snapshotOf(id1, "shop")}, true, Wanted},
	} {
		if c.source.last == nil {
			c.source.last = newSnapshot()
		}
		c.source.name = c.name
		d.meta.setSources([]*source{&c.source})
		if got := d.Look(7, 1); got != c.want || slices.Contains(scan(t, d), Proc{7, 1}) != c.want || !d.Look(8, 1) {
			t.Errorf("a source that %s: %v", c.name, got)
		}
		if s := d.Stats(); s.Processes[c.found] == 0 {
			t.Errorf("a source that %s: %+v", c.name, s.Processes)
		}
	}
}

func snapshotOf(id, name string) *snapshot {
	s := newSnapshot()
	s.addContainer(id, Container{Name: name})
	return s
}

func rule(change func(*relabel.Config)) *relabel.Config {
	c := relabel.DefaultRelabelConfig
	change(&c)
	return &c
}

func TestRelabeling(t *testing.T) {
	m := newMachine(t)
	m.spawn(fake{pid: 7, start: 1, comm: "web", exe: spin(t), args: []string{"web", "-config", "a"}})
	m.spawn(fake{pid: 8, start: 1, comm: "db", exe: spin(t)})
	rules := []*relabel.Config{
		rule(func(c *relabel.Config) {
			c.Action, c.SourceLabels, c.Regex = relabel.Drop, model.LabelNames{"comm"}, relabel.MustNewRegexp("d.*")
		}),
		rule(func(c *relabel.Config) {
			c.SourceLabels, c.TargetLabel, c.Replacement = model.LabelNames{"__meta_cmdline"}, "service_name", "s:$1"
		}),
		rule(func(c *relabel.Config) { c.Action, c.Regex = relabel.LabelDrop, relabel.MustNewRegexp("exe|module.*") }),
		rule(func(c *relabel.Config) { c.TargetLabel, c.Replacement = "__tmp", "x" }),
	}
	d := m.discovery(Config{Relabel: rules})
	if got := scan(t, d); !slices.Equal(got, []Proc{{7, 1}}) {
		t.Errorf("%v", got)
	}
	service, ls, _ := d.Labels(7, 1)
	if service != "s:web -config a" || value(ls, "exe")+value(ls, "module")+value(ls, "__tmp")+value(ls, "__meta_uid") != "" || value(ls, "comm") != "web" {
		t.Errorf("%s, %v", service, ls)
	}
	if s := d.Stats(); s.Processes[Dropped] != 1 || s.Processes[Wanted] != 1 {
		t.Errorf("%+v", s)
	}
	bad := Config{
		Relabel: []*relabel.Config{rule(func(c *relabel.Config) { c.Action = relabel.HashMod }), rules[0], rule(func(c *relabel.Config) { c.TargetLabel = "a b" })},
		Labels:  map[string]string{"1": "a", "__x": "b", "y": "\xff", "z": "fine"},
	}
	err := d.Reconfigure(bad)
	for _, says := range []string{"rule 1: ", "rule 3: ", `label "1": `, `label "__x": `, `label "y": `} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("no %q in %v", says, err)
		}
	}
	if got, _, _ := d.Labels(7, 1); got != service {
		t.Errorf("after an error the service is %q", got)
	}
}

// TestHostileProcesses: nobody waits for a file that does not answer, and what can be read is found all the same.
func TestHostileProcesses(t *testing.T) {
	m := newMachine(t)
	d := m.discovery(Config{})
	for pid := 10; pid < 12; pid++ {
		m.spawn(fake{pid: pid, start: 1, comm: "stalls", exe: spin(t)})
		environ := filepath.Join(m.root, fmt.Sprint(pid), "environ")
		if err := errors.Join(os.Remove(environ), syscall.Mkfifo(environ, 0o600)); err != nil {
			t.Fatal(err)
		}
		defer func() { // let the read end
			if f, err := os.OpenFile(environ, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				f.Close()
			}
		}()
	}
	m.spawn(fake{pid: 13, start: 1, comm: "fine", exe: spin(t)})
	if !d.Look(13, 1) { // and its file is known
		t.Error("a process among hostile ones is not found")
	}
	begin := time.Now()
	if d.Look(10, 1) || d.Look(11, 1) {
		t.Error("who knows whether it has opted out?")
	}
	if took := time.Since(begin); took > 20*patience {
		t.Errorf("Look took %v", took)
	}
	if got := scan(t, d); !slices.Equal(got, []Proc{{13, 1}}) {
		t.Errorf("%v", got)
	}
	for end := time.Now().Add(10 * time.Second); d.Stats().Unreadable["too costly to read"] < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", d.Stats())
		}
	}
	if s := d.Stats(); s.Late < 2 {
		t.Errorf("%+v", s)
	}
}

// TestManyAtOnce is for the race detector.
func TestManyAtOnce(t *testing.T) {
	m := newMachine(t)
	d := m.discovery(Config{})
	path := spin(t)
	for pid := 10; pid < 40; pid++ {
		m.spawn(fake{pid: pid, start: 1, comm: "x", exe: path})
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 50 {
				pid := 10 + (n*7+i)%30
				d.Look(pid, 1)
				d.Labels(pid, 1)
				switch n % 10 {
				case i:
					_, _ = d.Scan(t.Context())
				case 5:
					_ = d.Reconfigure(Config{Select: selectors(t, fmt.Sprintf("pid=%d", pid))})
				case 6:
					d.Forget(pid, 1)
				case 7:
					d.meta.setSources([]*source{{last: newSnapshot()}})
				}
				d.List()
				d.Stats()
			}
		})
	}
	all.Wait()
	if err := d.Reconfigure(Config{}); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, d); len(got) != 30 {
		t.Errorf("%d processes", len(got))
	}
}
