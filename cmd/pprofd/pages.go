package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropCode gives back the pages of this program's code and constants. Most were needed to initialize it, or to begin: with all that
// the agent links (grpc, Prometheus, OpenTelemetry) they are half of what `pprofd record` would hold. What is needed again the
// kernel maps again from the file: only mappings are given back of which no page was ever written to. Where that fails, more
// memory is held.
func dropCode() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	var start, end uint64 // of the mapping that the lines are about, if it is one of exe's that may not be written to
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 2:
		case !strings.HasSuffix(fields[0], ":"): // 400000-1a00000 r-xp 00000000 fe:00 1234 /usr/bin/pprofd
			start, end = 0, 0
			if len(fields) == 6 && fields[5] == exe && !strings.Contains(fields[1], "w") {
				start, end = span(fields[0])
			}
		case fields[0] == "Anonymous:" && fields[1] == "0" && end > start:
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED)
		}
	}
}

// span reads addresses as smaps has them.
func span(s string) (start, end uint64) {
	from, to, _ := strings.Cut(s, "-")
	start, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return 0, 0
	}
	end, err = strconv.ParseUint(to, 16, 64)
	if err != nil {
		return 0, 0
	}
	return start, end
}
