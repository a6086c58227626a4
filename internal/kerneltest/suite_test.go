package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	all := []suite{{pkg: "./a"}, {pkg: "./b", slow: true, run: "TestB"}, {pkg: "./a", name: "a again", slow: true, run: "TestA"}, {pkg: "./s", systemd: true},
		{pkg: "./p", name: "p says", command: true, slow: true}, {pkg: "./p", run: "TestP", slow: true}}
	tests := map[string]struct {
		args []string
		want string
	}{
		"all":                                 {nil, "./a: ./b:TestB a again:TestA p says: ./p:TestP"},
		"the short part":                      {[]string{"-short"}, "./a:"},
		"one":                                 {[]string{"./a"}, "./a: a again:TestA"},
		"those that need systemd":             {[]string{"-systemd"}, "./s:"},
		"tests by name run once":              {[]string{"-run", "X", "./a"}, "./a:X"},
		"a slow one by name":                  {[]string{"-short", "./b"}, "./b:TestB"},
		"a command and tests of it":           {[]string{"-run", "X", "./p"}, "p says:X ./p:X"},
		"other tests of it":                   {[]string{"-run", "X", "./b"}, "./b:X"},
		"a package that is not in the suite":  {[]string{"./c"}, "./c:"},
		"not a path from the module's root":   {[]string{"c"}, "error"},
		"both kinds, the suite's come before": {[]string{"./c", "./a"}, "./a: a again:TestA ./c:"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := parse(tt.args)
			if err != nil {
				t.Fatal(err)
			}
			chosen, err := choose(slices.Clone(all), c)
			var got []string
			for _, s := range chosen {
				got = append(got, s.title()+":"+s.run)
			}
			if err != nil {
				got = []string{"error"}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("chose %q, want %q", got, tt.want)
			}
		})
	}
}

func TestForKernel(t *testing.T) {
	all := []suite{{name: "tests"}, {name: "refuses", where: onUnsupported}, {name: "rules", where: onBase, arch: "arm64"}, {name: "doctor", where: everywhere}}
	for name, tt := range map[string]struct {
		kernel kernel
		arch   string
		want   string
	}{
		"the base kernel":   {kernel{Name: "6.1", Packages: []pkg{{}}, file: "vmlinuz-6.1.0"}, "arm64", "tests rules doctor"},
		"the other machine": {kernel{Name: "6.1", Packages: []pkg{{}}, file: "vmlinuz-6.1.0"}, "amd64", "tests doctor"},
		"another kernel":    {kernel{Name: "6.12", Packages: []pkg{{}}, file: "vmlinuz-6.12.0"}, "arm64", "tests doctor"},
		"an old kernel":     {kernel{Name: "5.10", Packages: []pkg{{}}, file: "vmlinuz-5.10.0"}, "arm64", "refuses doctor"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range forKernel(all, &tt.kernel, tt.arch) {
				got = append(got, s.name)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("suites %q, want %q", got, tt.want)
			}
		})
	}
}

// TestSuitesExist keeps the list true when packages and programs move.
func TestSuitesExist(t *testing.T) {
	t.Chdir("../..")
	for _, s := range allSuites() {
		dirs := []string{s.pkg}
		for _, name := range slices.Concat(s.targets, s.stripped, s.pie, s.cgo) {
			dirs = append(dirs, "internal/testprog/targets/"+name)
		}
		for _, pkg := range s.programs {
			dirs = append(dirs, pkg)
		}
		for _, file := range s.files {
			if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s: %v", file, err)
			}
		}
		for _, dir := range dirs {
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}

// TestToolchainsOnce: tests of suites that are run as one want each toolchain once.
func TestToolchainsOnce(t *testing.T) {
	c, err := parse([]string{"-run", "X", "./profiler"})
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := choose(allSuites(), c)
	if err != nil || len(chosen) != 1 {
		t.Fatalf("%d suites, %v", len(chosen), err)
	}
	got := chosen[0].toolchains("amd64", false)
	if once := slices.Compact(slices.Sorted(slices.Values(got))); len(got) < 4 || len(once) != len(got) {
		t.Errorf("toolchains %q", got)
	}
}

func TestAnUnknownArchitectureIsAnError(t *testing.T) {
	if _, err := machineFor("mips"); err == nil || !strings.Contains(err.Error(), "mips") {
		t.Errorf("error %v, want one that names it", err)
	}
}
