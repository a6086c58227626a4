package main

import (
	"os"
	"path/filepath"
	"strings"
)

// yamaHint says what the security module Yama forbids, and how to allow it; "" where it forbids nothing that CAP_SYS_PTRACE is not
// needed for anyway (Documentation/admin-guide/LSM/Yama.rst). proc is "/proc".
func yamaHint(proc string, root bool) string {
	b, err := os.ReadFile(filepath.Join(proc, "sys/kernel/yama/ptrace_scope"))
	if err != nil {
		return ""
	}
	switch scope := strings.TrimSpace(string(b)); {
	case scope == "3":
		return "kernel.yama.ptrace_scope is 3: nobody may read other processes' memory, root neither, until the machine has started again without it"
	case root:
		return ""
	case scope == "2":
		return "kernel.yama.ptrace_scope is 2: nobody may read other processes' memory without CAP_SYS_PTRACE, not even one's own processes'"
	case scope == "1":
		return "kernel.yama.ptrace_scope is 1: that is for one's own processes, too; `sysctl kernel.yama.ptrace_scope=0` allows those"
	}
	return ""
}
