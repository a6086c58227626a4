// Package job is what kerneltest and the init of its virtual machines agree on: the list of tests to run, which travels in the
// initramfs, and the lines by which init tells on the console how far it is.
package job

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// ListFile is where the initramfs holds the list, encoded by [Encode].
const ListFile = "/kerneltest.json"

// InitFile is where init is in a machine that boots systemd, which then runs it as a service, with the argument "jobs".
const InitFile = "/kerneltest-init"

// Job is one test binary to run in the machine.
type Job struct {
	Name    string        // the package, as kerneltest was told it
	Path    string        // of the test binary
	Dir     string        // working directory: the package's, with its testdata
	Args    []string      // -test.run and the like
	Env     []string      // besides what init sets for all
	Timeout time.Duration // after which init kills it
}

// Encode makes the content of ListFile.
func Encode(jobs []Job) ([]byte, error) { return json.MarshalIndent(jobs, "", "\t") }

// Decode reads the content of ListFile.
func Decode(data []byte) ([]Job, error) {
	var jobs []Job
	if err := json.Unmarshal(data, &jobs); err != nil {
		return nil, fmt.Errorf("decode %s: %w", ListFile, err)
	}
	return jobs, nil
}

// Event is what a line of the console says about the jobs.
type Event int

// The events in the order in which they come. Output is every line that init did not write.
const (
	Output  Event = iota
	Booted        // Text is the kernel's release
	Started       // Text is the job's name
	Ended         // Text is the job's error; "" if it succeeded
	Done          // all jobs ended and the machine goes down
)

const prefix = "@@kerneltest "

func (e Event) String() string {
	return [...]string{"output", "booted", "started", "ended", "done"}[e]
}

// Line encodes an event as a line of the console, newline included. Text loses its line breaks.
func Line(e Event, text string) string {
	return prefix + e.String() + " " + strings.Join(strings.Fields(text), " ") + "\n"
}

// Parse is the inverse of Line for one line without its end.
func Parse(line string) (e Event, text string) {
	rest, found := strings.CutPrefix(line, prefix)
	if !found {
		return Output, line
	}
	word, text, _ := strings.Cut(rest, " ")
	for e := Booted; e <= Done; e++ {
		if word == e.String() {
			return e, text
		}
	}
	return Output, line
}
