package job

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestListSurvivesTheTrip(t *testing.T) {
	want := []Job{{Name: "./bpf", Path: "/tests/bpf", Dir: "/src/bpf", Args: []string{"-test.v"}, Env: []string{"A=b"}, Timeout: time.Minute}}
	data, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("err %v, -want +got:\n%s", err, diff)
	}
}

func TestLines(t *testing.T) {
	tests := map[string]struct {
		line  string
		event Event
		text  string
	}{
		"a test's own output":          {"=== RUN   TestX", Output, "=== RUN   TestX"},
		"an event without text":        {"@@kerneltest done ", Done, ""},
		"a console that cut the space": {"@@kerneltest done", Done, ""},
		"an unknown event is output":   {"@@kerneltest whatever", Output, "@@kerneltest whatever"},
		"output is not an event":       {"@@kerneltest output x", Output, "@@kerneltest output x"},
		"line breaks in a text":        {strings.TrimSuffix(Line(Ended, "exit\nstatus 1"), "\n"), Ended, "exit status 1"},
		"the release":                  {strings.TrimSuffix(Line(Booted, "6.1.0"), "\n"), Booted, "6.1.0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if e, text := Parse(tt.line); e != tt.event || text != tt.text {
				t.Errorf("Parse(%q) = %v, %q; want %v, %q", tt.line, e, text, tt.event, tt.text)
			}
		})
	}
}
