package agents

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Peer is a profiler that is started by a shell command, and ended by SIGTERM if it does not end by itself within the time
// that it is asked to sample. In the command {pid} stands for the first process, {pids} for all, separated by commas, {hz}
// for the frequency, and {seconds} for how long. Nobody knows what it has sampled: Samples is nil.
func Peer(template string) Agent {
	return Agent{Name: "peer", Command: func(ctx context.Context, _ *Harness, o Sampling) *exec.Cmd {
		first, _, _ := strings.Cut(o.list(), ",")
		command := strings.NewReplacer("{pid}", first, "{pids}", o.list(), "{hz}", strconv.Itoa(o.Hz),
			"{seconds}", strconv.FormatFloat(o.D.Seconds(), 'f', -1, 64)).Replace(template)
		limit := strconv.FormatFloat((o.D + peerStart).Seconds(), 'f', -1, 64)
		return exec.CommandContext(ctx, "timeout", "--preserve-status", "-s", "TERM", "-k", "10", limit, "sh", "-c", command)
	}}
}

// peerStart is how much longer than it samples a peer may take.
const peerStart = 5 * time.Second
