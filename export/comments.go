package export

import "fmt"

const samplesForm = "samples recorded %d, lost %d"

// SamplesComment is the comment of a profile that says how many samples were taken for it; those that were lost are among them.
func SamplesComment(recorded, lost uint64) string { return fmt.Sprintf(samplesForm, recorded, lost) }

// ParseSamplesComment is its inverse. ok is false for other comments.
func ParseSamplesComment(c string) (recorded, lost uint64, ok bool) {
	n, err := fmt.Sscanf(c, samplesForm, &recorded, &lost)
	return recorded, lost, err == nil && n == 2 && SamplesComment(recorded, lost) == c
}
