package bpf

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

func onlineCPUs() ([]int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("list CPUs: %w (is /sys mounted?)", err)
	}
	return parseCPUs(strings.TrimSpace(string(b)))
}

const (
	minRing = 1 << 20
	maxRing = 64 << 20
	cpuRing = 64 << 10 // three quarters of a second of a CPU at 99 Hz, of samples of 900 B
)

// ringBytes is the size of a ring buffer for so many CPUs: 1 MiB is half a second of 16 CPUs at 99 Hz, 50 ms of 256.
func ringBytes(cpus int) int {
	size := minRing
	for size < maxRing && size < cpus*cpuRing {
		size *= 2
	}
	return size
}

// wakeupBytes is how full the ring buffer is when the reader is woken: half, if what is left then holds what all CPUs give in two
// seconds, else down to a quarter. To wake up costs more than a hundred samples.
func wakeupBytes(ring, cpus, hz int) int {
	const seconds, sampleBytes = 2, 1 << 10
	if hz <= 0 {
		return ring / 4
	}
	return min(max(ring-seconds*cpus*hz*sampleBytes, ring/4), ring/2)
}

// parseCPUs reads the kernel's list format: "0-3,8,10-11".
func parseCPUs(s string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		lo, err := strconv.ParseUint(first, 10, 16)
		hi := lo
		if err == nil && isRange {
			hi, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil {
			return nil, fmt.Errorf("list CPUs: %q: %w", s, err)
		}
		for cpu := lo; cpu <= hi; cpu++ {
			cpus = append(cpus, int(cpu))
		}
	}
	return cpus, nil
}
