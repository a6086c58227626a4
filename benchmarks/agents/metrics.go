package agents

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Metrics are what an agent says of itself at url, by name with labels.
func Metrics(url string) (map[string]float64, error) {
	answer, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	all := map[string]float64{}
	for lines := bufio.NewScanner(answer.Body); ; {
		if !lines.Scan() {
			return all, lines.Err()
		}
		i := strings.LastIndexByte(lines.Text(), ' ')
		if strings.HasPrefix(lines.Text(), "#") || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(lines.Text()[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", url, lines.Text(), err)
		}
		all[lines.Text()[:i]] = v
	}
}
