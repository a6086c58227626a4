package agents

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// fdInfos reads /proc/PID/fdinfo for all descriptors of one kind of a process: what readlink says of them.
func fdInfos(pid int, kind string) ([]map[string]string, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return nil, err
	}
	var infos []map[string]string
	for _, fd := range fds {
		if link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err != nil || link != "anon_inode:"+kind {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, ParseFields(b))
	}
	return infos, nil
}

// ParseFields reads lines of the form "key:	value".
func ParseFields(b []byte) map[string]string {
	fields := map[string]string{}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if key, v, ok := strings.Cut(sc.Text(), ":"); ok {
			fields[key] = strings.TrimSpace(v)
		}
	}
	return fields
}

// program opens the BPF program of a process of that name; nil: it has none, yet. What it returns stays in the
// kernel, with its statistics, until it is closed.
func program(pid int, name string) (*ebpf.Program, error) {
	infos, err := fdInfos(pid, "bpf-prog")
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		id, err := strconv.ParseUint(info["prog_id"], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("fdinfo of process %d: %w", pid, err)
		}
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if errors.Is(err, fs.ErrNotExist) {
			continue // unloaded meanwhile
		}
		if err != nil {
			return nil, err
		}
		i, err := p.Info()
		if err == nil && i.Name == name {
			return p, nil
		}
		if err := errors.Join(err, p.Close()); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

var errNoProgram = errors.New("none was seen")

// ProgramPoll is short against the shortest start, and costs little: a look at a few descriptors.
const ProgramPoll = time.Millisecond

// AwaitProgram waits until the agent has loaded its Sampling program.
func AwaitProgram(r *Run, name string) (*ebpf.Program, error) {
	for {
		p, err := program(r.Cmd.Process.Pid, name)
		if p != nil {
			return p, nil
		}
		select {
		case <-r.Done:
			return nil, fmt.Errorf("%s ended without a BPF program %s: %w\n%s", r.Cmd.Path, name, errors.Join(r.Err, err, errNoProgram), r.Output.Bytes())
		case <-time.After(ProgramPoll):
		}
	}
}

// ProgramTime adds up what the kernel counted of all BPF programs of a process, while its statistics are on.
func ProgramTime(pid int) (sum time.Duration, runs int64, err error) {
	infos, err := fdInfos(pid, "bpf-prog")
	if err != nil {
		return 0, 0, err
	}
	seen := map[string]bool{}
	for _, info := range infos {
		id := info["prog_id"]
		if seen[id] {
			continue
		}
		seen[id] = true
		ns, err1 := strconv.ParseInt(info["run_time_ns"], 10, 64)
		n, err2 := strconv.ParseInt(info["run_cnt"], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, fmt.Errorf("fdinfo of BPF program %s: %w", id, err)
		}
		sum, runs = sum+time.Duration(ns), runs+n
	}
	return sum, runs, nil
}

// Memory is VmRSS and VmHWM of a process in bytes; 0: it has none any more.
func Memory(pid int) (rss, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := ParseFields(b)
	kilobytes := func(key string) (n int64) {
		v, ok := fields[key]
		if ok && err == nil {
			n, err = strconv.ParseInt(strings.TrimSuffix(v, " kB"), 10, 64)
		}
		return n << 10
	}
	return kilobytes("VmRSS"), kilobytes("VmHWM"), err
}

// MapBytes adds up what the kernel says that the BPF maps of a process occupy.
func MapBytes(pid int) (sum int64, err error) {
	infos, err := fdInfos(pid, "bpf-map")
	seen := map[string]bool{}
	for _, info := range infos {
		if id := info["map_id"]; !seen[id] {
			n, err := strconv.ParseInt(info["memlock"], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("fdinfo of process %d: %w", pid, err)
			}
			seen[id] = true
			sum += n
		}
	}
	return sum, err
}
