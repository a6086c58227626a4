//go:build race

package render

// raced says that the race detector is there, whose memory has no measure.
const raced = true
