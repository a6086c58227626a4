package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	fakeotlp "github.com/pprofd/pprofd/internal/testprog/fakes/otlp"
	fakeparca "github.com/pprofd/pprofd/internal/testprog/fakes/parca"
	fakepyroscope "github.com/pprofd/pprofd/internal/testprog/fakes/pyroscope"

	"github.com/pprofd/pprofd/internal/testprog"
)

// TestRecordSends: what is in the file is at all servers, with labels that tell the process.
func TestRecordSends(t *testing.T) {
	parca, other := fakeparca.Start(t, fakeparca.Options{}), fakeparca.Start(t, fakeparca.Options{})
	pyroscope, otlp := fakepyroscope.Start(t, fakepyroscope.Options{}), fakeotlp.Start(t, fakeotlp.Options{})
	p := spin(t)
	cmd, out, errOut := command(t, "record", "-p", fmt.Sprint(p.PID), "-d", "2s", often, "--label", "env=test", "--label", "service_name=shop",
		"--parca", parca.Addr, "--parca", "http://"+other.Addr, "--pyroscope", pyroscope.URL(), "--otlp", otlp.GRPC())
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	n, cpu := sum(readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz")))
	for _, s := range []*fakeparca.Server{parca, other} {
		got := s.Stored()
		if len(got) != 1 || got[0].Sum("samples") != n || got[0].Sum("cpu") != cpu.Nanoseconds() || got[0].Name != "process_cpu" {
			t.Fatalf("Parca: %+v; wanted %d samples", got, n)
		}
		host, _ := os.Hostname()
		for name, want := range map[string]string{"service_name": "shop", "env": "test", "pid": fmt.Sprint(p.PID), "comm": "spin", "host": host, "module": "targets"} {
			if got[0].Labels[name] != want {
				t.Errorf("Parca: %s is %q, wanted %q", name, got[0].Labels[name], want)
			}
		}
	}
	if pyroscope.Sum("cpu", true) != cpu.Nanoseconds() || pyroscope.Series(true)[0].Labels["service_name"] != "shop" {
		t.Errorf("Pyroscope: %d of %v: %v", pyroscope.Sum("cpu", true), cpu, pyroscope.Series(true)[0].Labels)
	}
	if got := otlp.Sum("shop", "cpu"); got != cpu.Nanoseconds() {
		t.Errorf("OTLP: %d of %v", got, cpu)
	}
	if strings.Count(out.String(), ": 1 profile sent\n") != 4 || !strings.Contains(out.String(), "parca:"+parca.Addr) {
		t.Errorf("%s", out)
	}
}

// TestRecordSendsAll: of several processes and kinds, and of a program that is started. Configuration and secrets are the agent's.
func TestRecordSendsAll(t *testing.T) {
	parca := fakeparca.Start(t, fakeparca.Options{Token: "s3cret"})
	dir := t.TempDir()
	token, configuration := filepath.Join(dir, "token"), filepath.Join(dir, "pprofd.yaml")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(token, "s3cret\n")
	write(configuration, fmt.Sprintf("parca: {address: %q, bearer_token_file: %q}\n", parca.Addr, token))
	program := testprog.Build(t, "heap", testprog.Options{})
	cmd, _, errOut := command(t, "record", "-t", "cpu,heap,allocs", "-d", "1s", often, "--config", configuration, "--", program, "-busy", "-life", "2s")
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	names := map[string]int{}
	for _, s := range parca.Stored() {
		names[s.Name]++
		if s.Labels["service_name"] != "heap" || s.Labels["comm"] != "heap" || s.Labels["pid"] == "" {
			t.Errorf("%v", s.Labels)
		}
	}
	if names["process_cpu"] != 1 || names["memory"] != 2 || !strings.Contains(errOut.String(), ": 3 profiles sent") {
		t.Errorf("%v\n%s", names, errOut)
	}
	a, b := spin(t), spin(t)
	parca.Forget()
	cmd, _, errOut = command(t, "record", "-q", "--merge", "-p", fmt.Sprintf("%d,%d", a.PID, b.PID), "-d", "1s", often, "--config", configuration)
	if err := cmd.Run(); err != nil {
		t.Fatal(err, errOut)
	}
	if s := parca.Stored(); len(s) != 1 || s[0].Labels["service_name"] != "spin" || s[0].Labels["pid"] != "" || errOut.Len() > 0 {
		t.Errorf("%+v\n%s", s, errOut)
	}
}

// TestRecordSendsLater: a server that comes back within the time gets it; busy, it is not sent twice.
func TestRecordSendsLater(t *testing.T) {
	parca := fakeparca.Start(t, fakeparca.Options{})
	parca.Refuse(3, codes.Unavailable, "not now")
	cmd, out, errOut := command(t, "record", "-p", fmt.Sprint(spin(t).PID), "-d", "1s", often, "--parca", parca.Addr)
	if err := cmd.Run(); err != nil || len(parca.Stored()) != 1 || parca.Requests() != 4 {
		t.Errorf("%v, %d requests, %s%s", err, parca.Requests(), out, errOut)
	}
}

// TestRecordCannotSend: the file is there all the same, and what is said names it.
func TestRecordCannotSend(t *testing.T) {
	refused := fakeparca.Start(t, fakeparca.Options{})
	refused.Refuse(-1, codes.InvalidArgument, "I do not\nlike it")
	hung := fakeparca.Start(t, fakeparca.Options{})
	hung.Fault(fakeparca.Hang)
	good := fakeparca.Start(t, fakeparca.Options{})
	absent := freeAddress(t)
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"refused": {[]string{"--parca", refused.Addr}, []string{"1 profile not sent, but written to cpu.pb.gz", "InvalidArgument: I do not like it"}},
		"hanging": {[]string{"--parca", hung.Addr}, []string{"1 profile not sent, but written to cpu.pb.gz", "DeadlineExceeded"}},
		"absent":  {[]string{"--parca", "http://" + absent, "--parca", good.Addr}, []string{"parca:" + absent + ": 1 profile not sent", "refused"}},
		"several": {[]string{"--pyroscope", "http://" + absent, "-t", "cpu,heap", "-o", "both"}, []string{"profiles not sent, but written to both: "}},
	} {
		t.Run(name, func(t *testing.T) {
			program := testprog.Build(t, "heap", testprog.Options{})
			p := testprog.Start(t, program, "-busy", "-life", "60s")
			cmd, _, errOut := command(t, append([]string{"record", "-q", "-p", fmt.Sprint(p.PID), "-d", "1s", often, "--send-timeout", "2s"}, c.args...)...)
			began := time.Now()
			if code := exitCode(t, cmd.Run()); code != exitFailure {
				t.Errorf("exit code %d", code)
			}
			if d := time.Since(began); d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
			for _, want := range c.says {
				if !strings.Contains(errOut.String(), want) {
					t.Errorf("%q is not in %s", want, errOut)
				}
			}
			if files, err := filepath.Glob(filepath.Join(cmd.Dir, "*/*.pb.gz")); err != nil || len(files) != 2 {
				if p := readProfile(t, filepath.Join(cmd.Dir, "cpu.pb.gz")); len(p.Sample) == 0 {
					t.Error("nothing in the file")
				}
			}
		})
	}
	if len(good.Stored()) != 1 {
		t.Error("the server beside the one that is absent has got nothing")
	}
}

// TestCtrlCGivesUpSending: who does not want to wait for a server need not.
func TestCtrlCGivesUpSending(t *testing.T) {
	hung := fakeparca.Start(t, fakeparca.Options{})
	hung.Fault(fakeparca.Hang)
	cmd, _, errOut := command(t, "record", "-p", fmt.Sprint(spin(t).PID), "-d", "1s", often, "--parca", hung.Addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "a request", func() bool { return hung.Requests() > 0 })
	began := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != exitFailure || time.Since(began) > 10*time.Second || !strings.Contains(errOut.String(), "not sent, but written to cpu.pb.gz") {
		t.Errorf("exit code %d after %v: %s", code, time.Since(began), errOut)
	}
}

func TestWrongServers(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "pprofd.yaml")
	if err := os.WriteFile(empty, []byte("cpu: {hz: 19}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--parca parca":                                        "parca",
		"--pyroscope localhost:4040":                           "localhost:4040",
		"--otlp x":                                             "x",
		"--parca h:1 --parca h:1":                              "two servers",
		"--config /does/not/exist":                             "/does/not/exist",
		"--config " + empty:                                    "names no server",
		"--label a=b":                                          "there is none",
		"--parca localhost:1 --label a":                        "NAME=VALUE is wanted",
		"--parca localhost:1 --label a-b=c":                    "letters, digits and _",
		"--parca localhost:1 --label __name__=c":               "letters, digits and _",
		"--parca localhost:1 --send-timeout 0s":                "not positive",
		"--parca https://user:s3cret@localhost:7070 --merge=1": "--",
	} {
		code, out, errOut := call(t, append([]string{"record", "-q", "-p", fmt.Sprint(os.Getpid()), "-o", filepath.Join(t.TempDir(), "x")}, strings.Fields(args)...)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, want) || strings.Contains(errOut, "s3cret") {
			t.Errorf("%s: exit code %d, %s", args, code, errOut)
		}
	}
}
