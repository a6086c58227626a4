package procfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// TestProcessThatEndsWhileItIsRead: the kernel has another error for it than for one that has ended, the meaning is the same.
func TestProcessThatEndsWhileItIsRead(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /proc")
	}
	needs.Tool(t, "cat")
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(New("").Proc(cmd.Process.Pid).Path("stat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(f)
	if errors.Is(err, fs.ErrNotExist) || !errors.Is(gone(err), fs.ErrNotExist) || !errors.Is(gone(err), err) {
		t.Errorf("%v means %v", err, gone(err))
	}
	if gone(nil) != nil || errors.Is(gone(io.ErrUnexpectedEOF), fs.ErrNotExist) {
		t.Error("other errors are other errors")
	}
}
