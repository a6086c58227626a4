package governor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

func (d *Decision) reason(format string, args ...any) {
	d.Reasons = append(d.Reasons, fmt.Sprintf(format, args...))
}

// of is "0.9 % of 1 %" of the capacity; where that is unknown "0.02 of 0.03 CPUs".
func of(cost, allowed, cpus float64) string {
	if !positive(cpus) {
		return number(cost) + " of " + number(allowed) + " CPUs"
	}
	return percent(cost/cpus) + " of " + percent(allowed/cpus)
}

// change is "19 -> 12 Hz".
func (k *kind) change(before float64) string {
	if unit, ok := strings.CutPrefix(k.Unit, "1/"); ok {
		if unit == "B" {
			return size(1/before) + " -> " + size(1/k.rate)
		}
		return number(1/before) + " -> " + number(1/k.rate) + " " + unit
	}
	return strings.TrimSpace(number(before) + " -> " + number(k.rate) + " " + k.Unit)
}

func percent(f float64) string { return number(100*f) + " %" }

// number has two significant digits, or all of the integer.
func number(f float64) string {
	if math.Abs(f) >= 10 && math.Abs(f) < 1e15 {
		return strconv.FormatFloat(math.Round(f), 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', 2, 64)
}

func size(b float64) string {
	switch {
	case b >= 1<<30:
		return number(b/(1<<30)) + " GiB"
	case b >= 1<<20:
		return number(b/(1<<20)) + " MiB"
	case b >= 1<<10:
		return number(b/(1<<10)) + " KiB"
	}
	return number(b) + " B"
}
