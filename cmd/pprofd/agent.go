package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/internal/agent"
	"github.com/pprofd/pprofd/internal/agent/config"
)

// agentOptions are the flags that no key of the configuration stands for.
type agentOptions struct {
	file         string
	check, print bool
}

func newAgent() *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "agent",
		Short: "Profile every Go process of this machine, always",
		Long: `Agent finds the Go processes of this machine as they start and end, and profiles them all: CPU all the time at a low rate, heap
once a minute. Profiles are kept in a directory as DIR/<service>/<pid>-<start>/<kind>-<time>.pb.gz, the newest of them.

Servers of Pyroscope, Parca and OpenTelemetry get them, too, where they are given; profiles for one that is away wait on disk, up to an
hour, also while the agent does not run.

It needs no configuration. --print-config shows all settings with what they mean; a file of that form is what --config takes.
SIGHUP reads it anew: the window that is under way ends then, and is kept. SIGTERM and SIGINT end the agent; the last window
is kept, too. A process opts out with the environment variable PPROFD=off.

Over HTTP there are /metrics, /healthz and /readyz for everybody who can connect; all else needs the token in the file "token" of
the directory (see pprofd url): /pid/PID/debug/pprof/ and /service/NAME/debug/pprof/ are what net/http/pprof would be in the
process, and /targets lists the processes for scrapers.`,
		Example: `  sudo pprofd agent                                         # files in /var/lib/pprofd
  sudo pprofd agent --dir /srv/profiles --select 'user=www-data' --exclude 'exe=/usr/bin/*'
  sudo pprofd agent --pyroscope http://pyroscope:4040 --parca parca:7070 --otlp collector:4317
  pprofd agent --print-config > pprofd.yaml
  sudo pprofd agent --config pprofd.yaml --check-config`,
		Args: noArgs,
	}
	f := c.Flags()
	f.StringVar(&o.file, "config", "", "configuration file (YAML)")
	f.BoolVar(&o.check, "check-config", false, "say what is wrong with the configuration, all of it, and end")
	f.BoolVar(&o.print, "print-config", false, "print the settings in force, and end")
	given := configFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return runAgent(c, o, func() (*config.Config, error) { return config.Load(o.file, given()) })
	}
	return c
}

func runAgent(cmd *cobra.Command, o agentOptions, load func() (*config.Config, error)) error {
	dropCode()
	beModest()
	stderr := cmd.ErrOrStderr()
	c, err := load()
	switch {
	case err != nil:
		return usageError{err}
	case o.print:
		return c.Print(cmd.OutOrStdout())
	case o.check:
		_, err := fmt.Fprintln(stderr, "the configuration is good")
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	var level slog.LevelVar
	a, err := agent.New(agent.Options{
		Config: c, Load: load, Reload: reload, Log: newLog(stderr, c.Log.Format, &level), Level: &level, ProcRoot: procRoot, Version: version(),
	})
	if err != nil {
		return err
	}
	defer time.AfterFunc(agentStart, dropCode).Stop()
	return a.Run(ctx)
}

// agentStart is after which an agent has found what there was, and made the first profiles.
const agentStart = 30 * time.Second

// beModest has the runtime use one CPU at a time: what the agent and a recording do comes in pieces of a millisecond, and each time Go would wake up
// threads on other CPUs to look for more of it. That was a fifth of the agent's CPU time beside 50 starts a second. System calls
// that wait keep nobody from running.
func beModest() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

func newLog(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
