package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clipperhouse/displaywidth"
	"golang.org/x/sys/unix"

	"github.com/pprofd/pprofd/internal/procfs"
	"github.com/pprofd/pprofd/internal/testprog"
)

// costText is the line of what watching costs, once that is measured.
var costText = regexp.MustCompile(`(?m)^cost: pprofd \d+\.\d\d% CPU, BPF \d+\.\d\d%, \d+(\.\d)? MB, goroutines `)

func pidFlag(p *testprog.Proc) string { return fmt.Sprintf("-p=%d", p.PID) }

// alphaLeads says whether main.alpha is in the first row of the table.
func alphaLeads(lines []string) bool {
	for i, line := range lines {
		if strings.Contains(line, "flat%*") {
			return i+1 < len(lines) && strings.HasSuffix(lines[i+1], "  main.alpha")
		}
	}
	return false
}

// matching says whether a screen has what an expression describes.
func matching(expression string) func([]string) bool {
	re := regexp.MustCompile(expression)
	return func(lines []string) bool { return re.MatchString(strings.Join(lines, "\n")) }
}

func TestTopShowsWhereTimeGoes(t *testing.T) {
	p := spin(t)
	term := topIn(t, size{100, 30}, nil, pidFlag(p), often)
	lines := term.await("main.alpha on top, and the cost", func(lines []string) bool {
		return alphaLeads(lines) && costText.MatchString(strings.Join(lines, "\n"))
	})
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		fmt.Sprintf("pprofd top  spin (%d)", p.PID), "CPU ", "GC 0.0%", "heap ", "next GC at 4.2 MB", "goroutines ", "main.beta", " q quit",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q:\n%s", want, text)
		}
	}
	term.keys("c")
	term.awaitText("cum%*")
	term.keys("l")
	term.await("a line of main.alpha", matching(`main\.alpha  main\.go:\d+`))
	term.keys("f")
	term.awaitText("flat%*")
	term.keys("g")
	term.await("the goroutine that waits for the others", matching(`1 sync\.WaitGroup\.Wait +(≥\S+)? +main\.main[: ]`))
	term.keys("?")
	term.awaitText("sort by cum")
	term.keys("x")
	term.awaitText("created by")
	term.keys(" ")
	term.awaitText("PAUSED")
	term.keys("p\x1b[B\x1b[A")
	term.await("it goes on", func(lines []string) bool { return !strings.Contains(lines[0], "PAUSED") })
	term.keys("q")
	code, all := term.end()
	_, after, _ := strings.Cut(all, "\x1b[?1049l")
	if want := fmt.Sprintf("watched process %d (spin) for ", p.PID); code != 0 || !strings.Contains(after, want) || !strings.Contains(after, "most in main.alpha") {
		t.Errorf("exit code %d; on the normal screen %q", code, after)
	}
}

func TestTopFitsTheTerminal(t *testing.T) {
	p := spin(t)
	term := topIn(t, size{80, 24}, nil, pidFlag(p))
	for _, s := range []size{{80, 24}, {40, 10}, {200, 60}, {30, 5}, {80, 24}} {
		term.resize(s)
		lines := term.await(fmt.Sprintf("a screen of %v", s), func(lines []string) bool {
			return len(lines) == s.rows && strings.HasPrefix(lines[0], " pprofd top  spin") && strings.HasPrefix(lines[s.rows-1], " q quit") &&
				alphaLeads(lines)
		})
		text := strings.Join(lines, "\n")
		if s.rows > 5 && !strings.Contains(text, "\ncost: pprofd ") {
			t.Errorf("%v: what it costs is missing:\n%s", s, text)
		}
		for _, line := range lines {
			if displaywidth.String(line) > s.columns {
				t.Errorf("%v: too wide: %q", s, line)
			}
		}
	}
	term.keys("Q")
	if code, _ := term.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// color is a sequence that sets one.
var color = regexp.MustCompile("\x1b\\[([0-9;]*;)?(3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")

func TestTopWithAndWithoutColours(t *testing.T) {
	p := spin(t)
	for name, c := range map[string]struct {
		env  []string
		args []string
		want bool
	}{
		"colours":      {nil, nil, true},
		"NO_COLOR":     {[]string{"NO_COLOR=1"}, nil, false},
		"--no-color":   {nil, []string{"--no-color"}, false},
		"monochrome":   {[]string{"TERM=vt100"}, nil, false},
		"only in part": {[]string{"TERM=xterm"}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			term := topIn(t, size{80, 24}, c.env, append(c.args, pidFlag(p))...)
			term.await("main.alpha on top", alphaLeads)
			term.keys("\x03") // Ctrl-C
			code, all := term.end()
			if found := color.FindString(all); code != 0 || (found != "") != c.want {
				t.Errorf("exit code %d, colour %q, want some: %v", code, found, c.want)
			}
		})
	}
}

func TestTopEndsWithTheProcess(t *testing.T) {
	p := spin(t)
	term := topIn(t, size{80, 24}, nil, pidFlag(p), often)
	term.await("main.alpha on top", alphaLeads)
	if err := unix.Kill(p.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	code, all := term.end()
	_, after, _ := strings.Cut(all, "\x1b[?1049l")
	if want := fmt.Sprintf("process %d (spin) has ended: watched for ", p.PID); code != 0 || !strings.Contains(after, want) || !strings.Contains(after, "most in main.alpha") {
		t.Errorf("exit code %d; on the normal screen %q", code, after)
	}
}

func TestTopGivesTheTerminalBackWhenItIsTold(t *testing.T) {
	p := spin(t)
	for sig, want := range map[unix.Signal]int{unix.SIGTERM: 143, unix.SIGHUP: 129, unix.SIGINT: 130} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			term := topIn(t, size{80, 24}, nil, pidFlag(p))
			term.awaitText("q quit")
			if err := term.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if code, _ := term.end(); code != want {
				t.Errorf("exit code %d, want %d", code, want)
			}
		})
	}
}

// TestTopIsSuspended: Ctrl-Z stops pprofd, with the terminal as it was before, and SIGCONT brings it back.
func TestTopIsSuspended(t *testing.T) {
	p := spin(t)
	term := topIn(t, size{80, 24}, nil, pidFlag(p))
	term.awaitText("q quit")
	term.keys("\x1a")
	proc := procfs.New(procRoot).Proc(term.cmd.Process.Pid)
	for late := time.Now().Add(terminalPatience); ; time.Sleep(10 * time.Millisecond) {
		stat, err := proc.Stat()
		if err != nil || time.Now().After(late) {
			t.Fatalf("it does not stop: state %c, %v", stat.State, err)
		}
		if stat.State == 'T' {
			break
		}
	}
	if now := term.modes(); now != term.before {
		t.Errorf("the modes of the terminal are %+v, were %+v", now, term.before)
	}
	if err := term.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	term.await("raw modes", func([]string) bool { return term.modes() != term.before })
	term.keys("q")
	if code, _ := term.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestTopWantsATerminalThatMoves(t *testing.T) {
	p := spin(t)
	for _, name := range []string{"dumb", ""} {
		term := topIn(t, size{80, 24}, []string{"TERM=" + name}, pidFlag(p))
		code, all := term.end()
		if code != exitFailure || !strings.Contains(all, "(TERM="+name+")") || !strings.Contains(all, "--once") || strings.Contains(all, "\x1b[") {
			t.Errorf("TERM=%s: exit code %d, %q", name, code, all)
		}
	}
	term := topIn(t, size{80, 24}, []string{"TERM=dumb"}, pidFlag(p), "--once")
	if code, all := term.end(); code != 0 || !strings.Contains(all, "main.alpha") || strings.Contains(all, "\x1b[") {
		t.Errorf("--once: exit code %d, %q", code, all)
	}
}

// TestTopOnceIsText: where standard output is no terminal, one screen is printed.
func TestTopOnceIsText(t *testing.T) {
	p := spin(t)
	for args, want := range map[string]string{
		"":                    `(?m)^ +\d+\.\d% +\d+\.\d% +\d+\.\d\ds +\d+\.\d\ds  main\.alpha$`,
		"--lines --cum":       `(?m)^ +\d+\.\d% +\d+\.\d% +\d+\.\d\ds +\d+\.\d\ds  main\.alpha  main\.go:\d+$`,
		"--goroutines --once": `(?m)^ +1 sync\.WaitGroup\.Wait +(≥\S+)? +main\.main main\.go:\d+$`,
	} {
		cmd, stdout, stderr := command(t, append([]string{"top", pidFlag(p)}, strings.Fields(args)...)...)
		err := cmd.Run()
		text := stdout.String()
		if err != nil || !costText.MatchString(text) || !regexp.MustCompile(want).MatchString(text) || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s%s", args, err, text, stderr)
		}
	}
}

func TestTopChoosesOneProcess(t *testing.T) {
	bin := testprog.Build(t, "spin", testprog.Options{})
	name := "top-" + fmt.Sprint(os.Getpid())
	path := copyAs(t, bin, name)
	first := testprog.Start(t, path, "-threads=1", "-seconds=60")
	cmd, stdout, stderr := command(t, "top", "--comm", name)
	if err := cmd.Run(); err != nil || !strings.Contains(stdout.String(), fmt.Sprintf("(%d)", first.PID)) {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	second := testprog.Start(t, path, "-threads=1", "-seconds=60")
	cmd, _, stderr = command(t, "top", "--comm", name)
	err := cmd.Run()
	for _, p := range []*testprog.Proc{first, second} {
		if exitCode(t, err) != exitFailure || !strings.Contains(stderr.String(), fmt.Sprint(p.PID)) {
			t.Errorf("%v: %s", err, stderr)
		}
	}
}

func TestTopRefusesWhatMakesNoSense(t *testing.T) {
	for args, says := range map[string]string{
		"top": "nothing to watch", "top -p 0": "nothing to watch", "top -p -1": "is no PID", "top -p 1 --comm x": "not both", "top --comm [": "bad pattern",
		"top -p 1 --interval 10ms": "--interval 10ms", "top -p 1 -F 0": "1 to 10000", "top 1": "unexpected argument",
	} {
		code, out, errOut := call(t, strings.Fields(args)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, says) || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, errOut)
		}
	}
	if code, _, errOut := call(t, "top", "-p", "4194304"); code != exitFailure || !strings.Contains(errOut, "no such process: 4194304") {
		t.Errorf("a process that is not there: %d, %q", code, errOut)
	}
	if code, out, _ := call(t, "top", "--help"); code != 0 || !strings.Contains(out, "Examples:\n  sudo pprofd top -p 4242\n") {
		t.Errorf("--help: %d\n%s", code, out)
	}
}
