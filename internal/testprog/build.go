package testprog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pprofd/pprofd/internal/testprog/needs"
)

// modulePath is the module whose tests use this package; its root holds internal/testprog/targets.
const modulePath = "module github.com/pprofd/pprofd"

// cacheAge is how long an unused program stays in the cache.
const cacheAge = 14 * 24 * time.Hour

// Options say how a target program is built. The zero value is a plain static build by the local toolchain.
type Options struct {
	Go      string   // toolchain, such as "1.22.12"; "" is the local one
	Arch    string   // GOARCH; "" is the host's
	Cgo     bool     // CGO_ENABLED=1; also needed by -race
	PIE     bool     // -buildmode=pie
	Strip   bool     // -ldflags="-s -w"
	LDFlags string   // more linker flags, such as "-linkmode=external"
	Flags   []string // more flags of go build, such as "-race", "-trimpath", "-gcflags=all=-l"
}

// String names the build in a few words that are safe in a file name or a test name.
func (o Options) String() string {
	words := []string{"golocal"}
	if o.Go != "" {
		words[0] = o.toolchain()
	}
	if o.Arch != "" {
		words = append(words, o.Arch)
	}
	for word, on := range map[string]bool{"cgo": o.Cgo, "pie": o.PIE, "stripped": o.Strip} {
		if on {
			words = append(words, word)
		}
	}
	slices.Sort(words[1:])
	for _, flag := range append(strings.Fields(o.LDFlags), o.Flags...) {
		words = append(words, strings.Trim(flag, "-"))
	}
	return strings.NewReplacer("/", "_", "=", "_", " ", "_").Replace(strings.Join(words, "-"))
}

// toolchain is the value of GOTOOLCHAIN.
func (o Options) toolchain() string {
	if o.Go == "" {
		return "local"
	}
	return "go" + strings.TrimPrefix(o.Go, "go")
}

func (o Options) environ() []string {
	cgo := "CGO_ENABLED=0"
	if o.Cgo {
		cgo = "CGO_ENABLED=1"
	}
	env := append(os.Environ(), "GOTOOLCHAIN="+o.toolchain(), "GOWORK=off", "GOFLAGS=-mod=mod -buildvcs=false", "GOOS=linux", cgo)
	if o.Arch != "" {
		env = append(env, "GOARCH="+o.Arch)
	}
	if o.Cgo && o.Arch != "" && o.Arch != runtime.GOARCH {
		env = append(env, "CC="+CC(o.Arch))
	}
	if strings.HasPrefix(o.toolchain(), "go1.19") { // its module index breaks where GOROOT lies in the module cache
		env = append(env, "GODEBUG=goindex=0")
	}
	return env
}

// CC is Debian's C compiler for an architecture. Another one than the host's is package gcc-aarch64-linux-gnu, or gcc-x86-64-linux-gnu.
func CC(arch string) string {
	if arch == runtime.GOARCH {
		return "gcc"
	}
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch] + "-linux-gnu-gcc"
}

func (o Options) args() []string {
	var args []string
	if o.PIE {
		args = append(args, "-buildmode=pie")
	}
	ld := o.LDFlags
	if o.Strip {
		ld = strings.TrimSpace("-s -w " + ld)
	}
	if ld != "" {
		args = append(args, "-ldflags="+ld)
	}
	return append(args, o.Flags...)
}

// Build returns the path of the target program name, built as o says. Programs are kept between runs in a
// cache of the user, keyed by source, options and toolchain; several processes may build at once.
// The file belongs to the cache: copy it before changing it.
//
// The test is skipped, by name, where the toolchain or a C compiler cannot be had, or fails where package needs says
// so. Where there is no go command, as in the machines of kerneltest, PPROFD_TARGETS_DIR
// names a directory of programs built before, and nothing is built.
func Build(t testing.TB, name string, o Options) string {
	t.Helper()
	if dir := os.Getenv("PPROFD_TARGETS_DIR"); dir != "" {
		return prebuilt(t, dir, name, o)
	}
	path, err := BuildFile(name, o)
	var missing *missingError
	switch {
	case errors.As(err, &missing):
		needs.Missing(t, "toolchain", fmt.Sprintf("to build %s (%v): %v", name, o, err))
	case err != nil:
		t.Fatalf("building %s (%v): %v", name, o, err)
	}
	return path
}

// prebuilt returns the program at [Prebuilt] below dir. The test ends where it is not there.
func prebuilt(t testing.TB, dir, name string, o Options) string {
	t.Helper()
	path := filepath.Join(dir, Prebuilt(name, o))
	if _, err := os.Stat(path); err != nil {
		needs.Missing(t, "target", err.Error())
	}
	return path
}

// Prebuilt is where Build looks for a program in PPROFD_TARGETS_DIR.
func Prebuilt(name string, o Options) string { return filepath.Join(o.String(), name) }

// BuildFile is Build without a test, for those who carry programs to where they cannot be built, and who find them there.
func BuildFile(name string, o Options) (string, error) {
	if dir := os.Getenv("PPROFD_TARGETS_DIR"); dir != "" {
		path := filepath.Join(dir, Prebuilt(name, o))
		_, err := os.Stat(path)
		return path, err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	return build(cache, name, o)
}

// missingError is a tool that this machine does not have.
type missingError struct{ what string }

func (e *missingError) Error() string { return e.what }

func build(cache, name string, o Options) (string, error) {
	module, err := targetsDir()
	if err != nil {
		return "", err
	}
	key, err := cacheKey(module, name, o)
	if err != nil {
		return "", err
	}
	// A directory per key, so that the file, hence comm, is called as the program.
	path := filepath.Join(cache, key, name)
	if _, err := os.Stat(path); err == nil {
		now := time.Now()
		return path, os.Chtimes(filepath.Dir(path), now, now)
	}
	prune(cache)
	return path, compile(module, name, path, o)
}

// compile builds into a temporary file and renames, so that nobody sees half a program.
func compile(module, name, path string, o Options) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("build cache: %w", err)
	}
	tmp := fmt.Sprintf("%s.%d.%d.tmp", path, os.Getpid(), time.Now().UnixNano())
	defer os.Remove(tmp)
	cmd := exec.Command("go", append(append([]string{"build", "-o", tmp}, o.args()...), "./"+name)...)
	cmd.Dir, cmd.Env = module, o.environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		if o.Cgo && bytes.Contains(out, []byte("executable file not found")) {
			return &missingError{"no C compiler: install gcc"}
		}
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return os.Rename(tmp, path)
}

// cacheKey hashes what decides the program's bytes: its sources, those it may share, options and toolchain.
func cacheKey(module, name string, o Options) (string, error) {
	version, err := goVersion(module, o)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n%q %v %s\n", version, o.args(), o.Arch, o.Cgo, runtime.GOARCH)
	for _, part := range []string{"go.mod", "internal", name} {
		err := filepath.WalkDir(filepath.Join(module, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			fmt.Fprintf(h, "%s %d\n%s", filepath.Base(path), len(data), data)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("sources of the program: %w", err)
		}
	}
	return fmt.Sprintf("%s-%s", name, hex.EncodeToString(h.Sum(nil)[:10])), nil
}

// goVersion asks the toolchain for its version and C compiler, downloading the toolchain where the go command may.
func goVersion(module string, o Options) (string, error) {
	cmd := exec.Command("go", "env", "GOVERSION", "CC", "CGO_CFLAGS", "CGO_LDFLAGS", "GOEXPERIMENT", "GOAMD64")
	cmd.Dir, cmd.Env = module, o.environ()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && o.Go != "" {
		return "", &missingError{fmt.Sprintf("toolchain %s cannot be had: %v: %s", o.toolchain(), err, bytes.TrimSpace(stderr.Bytes()))}
	}
	if err != nil {
		return "", fmt.Errorf("go env: %w: %s", err, stderr.Bytes())
	}
	return string(out), nil
}

// targetsDir finds the nested module from the working directory, which for a test is its package's.
func targetsDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if line, _, _ := strings.Cut(string(data), "\n"); err == nil && line == modulePath {
			return filepath.Join(dir, "internal", "testprog", "targets"), nil
		}
	}
	return "", errors.New("no go.mod of pprofd above the working directory: run tests inside the source tree")
}

func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "pprofd-testprog")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	return dir, nil
}

// prune removes programs that nobody asked for during cacheAge. Failing to is no failure of a test.
func prune(cache string) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > cacheAge {
			os.RemoveAll(filepath.Join(cache, e.Name()))
		}
	}
}
