package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pprofd/pprofd/export/pprofhttp/ui/render"
	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

// asPprofd in the environment makes the test binary be pprofd: end-to-end tests run it as a process of its own.
const asPprofd = "PPROFD_TEST_AS_PPROFD"

// The waiting child of a program behind -- is a copy of this binary, too.
func TestMain(m *testing.M) {
	if os.Getenv(asPprofd) != "" || len(os.Args) > 1 && slices.Contains([]string{execName, render.Arg}, os.Args[1]) {
		main()
	}
	os.Exit(leaks.Run(m))
}

// call runs a command line in this process.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = run(t.Context(), &out, &errOut, args)
	return code, out.String(), errOut.String()
}

func TestWrongUseExitsWith2AndOneLine(t *testing.T) {
	for name, c := range map[string]struct{ args, says string }{
		"unknown command":            {"frob", `unknown command "frob"`},
		"mistyped command":           {"recrod", "did you mean record?"},
		"mistyped command, flags":    {"recrod -p 1", "did you mean record?"},
		"unknown flag":               {"record -x", "unknown shorthand flag"},
		"unknown long flag":          {"ps --frob", "unknown flag: --frob"},
		"unknown shell":              {"completion frob", `unknown command "frob"`},
		"argument to ps":             {"ps 1", `unexpected argument "1"`},
		"man without directory":      {"man", "one directory"},
		"nothing to record":          {"record", "nothing to record"},
		"no program":                 {"record --", "no program behind --"},
		"program without dashes":     {"record -p 1 prog", "stands behind --"},
		"program before the dashes":  {"record prog -- x", "stands behind --"},
		"process and program":        {"record -p 1 -- prog", "not both"},
		"as root without a program":  {"record -p 1 --as-root", "--as-root"},
		"PID is no number":           {"record -p x", "invalid argument"},
		"PID 0":                      {"record -p 0", "0 is no PID"},
		"negative PID":               {"record -p 1,-5", "-5 is no PID"},
		"frequency 0":                {"record -p 1 -F 0", "1 to 10000"},
		"frequency too high":         {"record -p 1 -F 10001", "1 to 10000"},
		"duration without unit":      {"record -p 1 -d 5", "missing unit"},
		"duration 0":                 {"record -p 1 -d 0s", "not positive"},
		"negative duration":          {"record -d -1s -- prog", "not positive"},
		"unknown kind":               {"record -p 1 -t frob", "known are cpu"},
		"empty kind":                 {"record -p 1 --type=", "no kind"},
		"unknown format":             {"record -p 1 --format frob", "known are pprof, folded, text"},
		"unknown event":              {"record -p 1 --event frob", "known are auto, cpu-clock, cycles"},
		"pgo in another format":      {"record -p 1 --pgo --format text", "--pgo writes pprof"},
		"bad pattern":                {"record --comm [", "bad pattern"},
		"empty pattern":              {"record --exe=", "bad pattern"},
		"forgotten value of a flag":  {"record -p", "needs an argument"},
		"value for a switch":         {"record -p 1 --merge=x", "invalid argument"},
		"exec without a parent":      {"__exec x", "unexpected argument"},
		"argument to version":        {"version x", "unexpected argument"},
		"doctor with an unknown one": {"doctor --yaml", "unknown flag"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errOut := call(t, strings.Fields(c.args)...)
			if code != exitUsage || out != "" {
				t.Errorf("exit code %d, output %q", code, out)
			}
			if !strings.Contains(errOut, c.says) || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, "--help") {
				t.Errorf("says %q, want one line with %q that points to --help", errOut, c.says)
			}
		})
	}
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	for _, command := range []string{"", "record", "ls", "merge", "diff", "ps", "dump", "top", "doctor", "url", "version", "man"} {
		code, out, errOut := call(t, append(strings.Fields(command), "--help")...)
		if code != 0 || errOut != "" || !strings.Contains(out, "Examples:\n  ") {
			t.Errorf("%q --help: exit code %d, %q\n%s", command, code, errOut, out)
		}
	}
	if code, out, _ := call(t); code != 0 || !strings.Contains(out, "Available Commands:") || strings.Contains(out, execName) {
		t.Errorf("without arguments: exit code %d\n%s", code, out)
	}
}

func TestManPagesNameEveryFlag(t *testing.T) {
	dir := t.TempDir()
	if code, _, errOut := call(t, "man", dir); code != 0 {
		t.Fatal(errOut)
	}
	page, err := os.ReadFile(filepath.Join(dir, "pprofd-record.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"pid", "comm", "exe", "duration", "frequency", "output", "format", "type", "event", "no-kernel", "merge", "pgo", "goid", "tid", "as-root", "quiet"} {
		if !bytes.Contains(page, []byte(`\fB--`+flag+`\fP`)) && !bytes.Contains(page, []byte(`, \fB--`+flag)) {
			t.Errorf("--%s is not in the page", flag)
		}
	}
	// md2man takes <words> for HTML and drops them.
	if !bytes.Contains(page, []byte("COMM-PID.KIND.pb.gz")) {
		t.Error("the page lost a placeholder")
	}
	if code, _, _ := call(t, "man", filepath.Join(dir, "missing")); code != exitFailure {
		t.Errorf("missing directory: exit code %d", code)
	}
}

func TestCompletionKnowsValues(t *testing.T) {
	for flag, want := range map[string]string{"--type": "cpu\n", "--format": "folded\n", "--event": "cpu-clock\n"} {
		if _, out, _ := call(t, "__complete", "record", flag, ""); !strings.Contains(out, want) {
			t.Errorf("%s completes to %q", flag, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, out, _ := call(t, "completion", shell); code != 0 || !strings.Contains(out, "pprofd") {
			t.Errorf("%s: exit code %d", shell, code)
		}
	}
}
