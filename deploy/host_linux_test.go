package deploy

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/testprog"
)

// Where pprofd.service has them.
const (
	configFile = "/etc/pprofd/pprofd.yaml"
	dataDir    = "/var/lib/pprofd"
)

// quick is configuration for short tests. An emulated machine is always so busy that next to nothing would be profiled.
const quick = "window: 2s\nheap: {interval: 3s}\noverhead: {cpu: 0%}\n"

// patience is for what takes a second on a machine that is not emulated.
const patience = time.Minute

// host is a machine whose init is systemd, with pprofd.service.
type host struct{ seen map[string]bool }

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Getenv("PPROFD_KERNELTEST") == "" {
		t.Skip("needs a machine booted by make test-systemd")
	}
	// Hanging is found in a shorter time; nothing else differs from what users have.
	dropIn(t, "test", "WatchdogSec=9\nRestartSec=1")
	t.Cleanup(func() { run(t, "systemctl", "stop", "pprofd.service") })
	return &host{seen: make(map[string]bool)}
}

// dropIn changes the unit for the time of a test.
func dropIn(t *testing.T, name, lines string) {
	t.Helper()
	file := "/run/systemd/system/pprofd.service.d/" + name + ".conf"
	write(t, file, "[Service]\n"+lines+"\n")
	run(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
		run(t, "systemctl", "daemon-reload")
	})
}

// service is a program to profile. It belongs to another user, who alone may read it, and is in a home, which the agent does
// not see by its path.
type service struct {
	name    string
	program string // of internal/testprog/targets
	args    string
	env     string
}

func (s service) start(t *testing.T) {
	t.Helper()
	const nobody = 65534
	file := filepath.Join("/home/shop", s.name)
	b, err := os.ReadFile(testprog.Build(t, s.program, testprog.Options{}))
	if err == nil {
		write(t, file, string(b))
		err = errors.Join(os.Chmod(file, 0o700), os.Chown(file, nobody, nobody))
	}
	if err != nil {
		t.Fatal(err)
	}
	unit := "[Service]\nUser=nobody\nCPUQuota=25%\nExecStart=" + file + " " + s.args + "\nEnvironment=" + s.env + "\n"
	write(t, "/run/systemd/system/"+s.name+".service", unit)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "start", s.name+".service")
	t.Cleanup(func() { run(t, "systemctl", "stop", s.name+".service") })
}

func (h *host) configure(t *testing.T, text string) {
	t.Helper()
	write(t, configFile, text)
}

// profiles are the files of a service's profiles of a kind.
func (h *host) profiles(t *testing.T, service, kind string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dataDir, service, "*", kind+"-*.pb.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// await waits for a profile that is not known yet.
func (h *host) await(t *testing.T, service, kind string) (file string) {
	t.Helper()
	for _, file := range h.profiles(t, service, kind) {
		h.seen[file] = true
	}
	eventually(t, patience, "no "+kind+" profile of "+service, func() bool {
		files := h.profiles(t, service, kind)
		i := slices.IndexFunc(files, func(s string) bool { return !h.seen[s] })
		if i >= 0 {
			file = files[i]
		}
		return i >= 0
	})
	return file
}

// services are those that there are profiles of.
func (h *host) services(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// journal shows what the agent and systemd said of it.
func (h *host) journal(t *testing.T, lines int) {
	t.Helper()
	out, err := try(t, "journalctl", "--unit=pprofd.service", "--no-pager", "--output=short-monotonic", "--lines="+strconv.Itoa(lines))
	t.Logf("journal, %v:\n%s", err, out)
}

func functions(t *testing.T, file string) (names []string) {
	t.Helper()
	p := read(t, file)
	for _, fn := range p.Function {
		names = append(names, fn.Name)
	}
	return names
}

func property(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "systemctl", "show", "--property="+name, "--value", "pprofd.service"))
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, tail(out))
	}
	return out
}

func try(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput() // not t.Context: it is used in cleanups, too
	return string(out), err
}

// tail is the end of a long text.
func tail(s string) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s after %v", what, within)
		}
	}
}

// objects are the BPF programs, maps and links of the kernel, by their IDs. systemd has some, too.
type objects struct{ programs, maps, links map[uint32]bool }

type counts struct{ programs, maps, links int }

func bpfObjects(t *testing.T) objects {
	t.Helper()
	return objects{ids(t, unix.BPF_PROG_GET_NEXT_ID), ids(t, unix.BPF_MAP_GET_NEXT_ID), ids(t, unix.BPF_LINK_GET_NEXT_ID)}
}

// without counts what is in o, and not in before.
func (o objects) without(before objects) counts {
	more := func(now, before map[uint32]bool) (n int) {
		for id := range now {
			if !before[id] {
				n++
			}
		}
		return n
	}
	return counts{more(o.programs, before.programs), more(o.maps, before.maps), more(o.links, before.links)}
}

func ids(t *testing.T, command uintptr) map[uint32]bool {
	t.Helper()
	all := make(map[uint32]bool)
	attr := struct{ start, next, flags uint32 }{} // union bpf_attr, the part for *_GET_*_ID
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno == unix.ENOENT {
			return all
		}
		if errno != 0 {
			t.Fatalf("BPF objects: %v", errno)
		}
		all[attr.next] = true
		attr.start = attr.next
	}
}
