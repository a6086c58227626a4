package spend

import (
	"fmt"
	"strconv"
	"strings"
)

// ParsePercent reads a budget as people write it, 1% or 0.5: percent, from 0.01 to 100, or 0 for no limit.
func ParsePercent(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(s, "%")), 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no percentage: write it as 1%% or 0.5%%", s)
	case v != 0 && !(v >= leastPercent && v <= 100):
		return 0, fmt.Errorf("%s is not within %s and 100%%", FormatPercent(v), FormatPercent(leastPercent))
	}
	return v, nil
}

const leastPercent = 0.01

// FormatPercent writes 1%.
func FormatPercent(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) + "%" }
