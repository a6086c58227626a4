package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestYamaHint(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sys/kernel/yama/ptrace_scope")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if hint := yamaHint(dir, false); hint != "" {
		t.Errorf("without Yama: %q", hint)
	}
	for _, c := range []struct {
		scope string
		root  bool
		says  string // "": nothing
	}{
		{"0", false, ""}, {"1", false, "sysctl kernel.yama.ptrace_scope=0"}, {"2", false, "CAP_SYS_PTRACE"}, {"3", false, "root neither"},
		{"0", true, ""}, {"1", true, ""}, {"2", true, ""}, {"3", true, "root neither"},
	} {
		if err := os.WriteFile(file, []byte(c.scope+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if hint := yamaHint(dir, c.root); (hint == "") != (c.says == "") || !strings.Contains(hint, c.says) {
			t.Errorf("%+v: %q", c, hint)
		}
	}
}
