package testprog

import (
	"os"
	"strings"
)

// Versions are the Go toolchains that end-to-end tests build their targets with: the local one ("") and the ends of
// what is supported, or, with PPROFD_FULL=1, the last patch release of each minor version. PPROFD_VERSIONS names others,
// with commas between them: those of which programs are in PPROFD_TARGETS_DIR.
func Versions() []string {
	if list, ok := os.LookupEnv("PPROFD_VERSIONS"); ok {
		return strings.Split(list, ",")
	}
	if os.Getenv("PPROFD_FULL") != "" {
		return AllVersions()
	}
	return []string{"", "1.18.10", "1.23.12", "1.27.4"}
}

// AllVersions are the local toolchain ("") and the last patch release of each other minor version.
func AllVersions() []string {
	return []string{"", "1.18.10", "1.19.13", "1.20.14", "1.21.13", "1.22.12", "1.23.12", "1.24.13", "1.25.7", "1.27.4"}
}
