package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestPullRefuses: who asks for what cannot be had is told so.
func TestPullRefuses(t *testing.T) {
	bin := ownPrograms(t, "spin", "heap", "leaf")
	conf := writeConfig(t, "exclude: ['exe=*/leaf']\n")
	a := startPulled(t, bin, "--config", conf)
	spin := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=120").PID
	heap := testprog.Start(t, bin+"/heap", "-quiet").PID
	out := testprog.StartWith(t, testprog.StartOptions{Env: []string{"PPROFD=off"}}, bin+"/spin", "-threads=1", "-seconds=120").PID
	excluded := testprog.Start(t, bin+"/leaf", "-seconds=120").PID
	ended := testprog.Start(t, bin+"/spin", "-threads=1", "-seconds=120")
	ended.Stop()
	foreign := exec.CommandContext(t.Context(), "sleep", "120")
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = foreign.Process.Kill()
		_ = foreign.Wait()
	}()
	pid := func(pid int, rest string) string { return fmt.Sprintf("/pid/%d/debug/pprof/%s", pid, rest) }
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		pid(spin, "profile?seconds=x"):          {400, "positive integer"},
		pid(spin, "profile?seconds=0"):          {400, "positive integer"},
		pid(spin, "profile?seconds=-1"):         {400, "positive integer"},
		pid(spin, "profile?seconds=9999999999"): {400, "at most 86400"},
		pid(heap, "heap?debug=x"):               {400, "debug"},
		pid(heap, "heap?gc=maybe"):              {400, "gc"},
		pid(heap, "heap?seconds=1&debug=1"):     {400, "incompatible"},
		"/pid/self/debug/pprof/heap":            {400, "no PID"},
		pid(0, "heap"):                          {400, "no PID"},
		pid(spin, "goroutine?debug=2"):          {501, "pprofd dump"},
		pid(spin, "goroutineleak"):              {501, "net/http/pprof"},
		pid(spin, "block"):                      {501, "SetBlockProfileRate"},
		pid(spin, "mutex"):                      {501, "SetMutexProfileFraction"},
		pid(spin, "mutex?seconds=1"):            {501, "SetMutexProfileFraction"},
		pid(spin, "block?debug=1&seconds=1"):    {400, "incompatible"},
		pid(spin, "trace?seconds=1"):            {501, "net/http/pprof"},
		pid(spin, "threadcreate"):               {501, "net/http/pprof"},
		pid(spin, "heap"):                       {501, "linked out"},
		pid(spin, "nothing"):                    {404, "no kind"},
		pid(out, "profile?seconds=1"):           {404, "PPROFD=off"},
		pid(excluded, "profile?seconds=1"):      {404, "exclude"},
		pid(excluded, "cmdline"):                {404, "exclude"},
		pid(excluded, ""):                       {404, "exclude"},
		pid(excluded, "symbol?0x1"):             {404, "exclude"},
		pid(ended.PID, "heap"):                  {404, "does not run"},
		pid(foreign.Process.Pid, "heap"):        {404, "no Go program"},
		pid(os.Getpid(), "heap"):                {404, "select"},
		pid(1<<22+1, "profile"):                 {404, "does not run"},
		"/service/nobody/debug/pprof/heap":      {404, "no process of a service"},
		"/service/spin/debug/pprof/symbol?0x1":  {501, "for one of them"},
	} {
		got, err := a.ask(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got.status != want.status || !strings.Contains(string(got.body), want.text) || got.header.Get("X-Go-Pprof") != "1" {
			t.Errorf("%s: %d %q, want %d and %q; %v", path, got.status, got.body, want.status, want.text, got.header)
		}
	}
	header, b := a.get(t, pid(heap, "heap?gc=1"))
	if note := header.Get("X-Pprofd-Note"); note == "" || !slices.Contains(parsed(t, b).Comments, note) {
		t.Errorf("note %q", note)
	}
	a.token = "0123456789abcdef"
	for _, path := range []string{pid(spin, "profile"), pid(spin, ""), "/service/spin/debug/pprof/heap", "/targets"} {
		if got, err := a.ask(t.Context(), path); err != nil || got.status != http.StatusUnauthorized {
			t.Errorf("%s with another token: %v, %d", path, err, got.status)
		}
	}
	if err := syscall.Kill(foreign.Process.Pid, 0); err != nil {
		t.Error(err)
	}
}
