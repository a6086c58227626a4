package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/internal/agent/config"
)

// urlOptions are the flags of url.
type urlOptions struct {
	pid    int
	config string
	kind   string
}

func newURL() *cobra.Command {
	var o urlOptions
	c := &cobra.Command{
		Use:   "url [flags] [KIND]",
		Short: "Print the agent's URL of a profile, for go tool pprof",
		Long: `Url prints where pprofd agent on this host has a profile, with the token that the agent asks for:

  go tool pprof $(sudo pprofd url -p 4242 heap)

KIND is what net/http/pprof calls it: heap (where none is given), allocs, profile (or cpu), ... Without -p it is a profile
of the agent itself. What the agent's command line says of --config, --listen, --dir and --insecure-loopback has to be said
here, too.

Who has the URL can see the profiles of all processes: it is as secret as the token in it.`,
		Example: `  go tool pprof $(sudo pprofd url -p 4242 heap)
  go tool pprof -seconds 30 $(sudo pprofd url -p 4242 cpu)
  go tool pprof $(sudo pprofd url heap)        # of the agent itself`,
	}
	c.Flags().IntVarP(&o.pid, "pid", "p", 0, "process; without it, the agent itself")
	c.Flags().StringVar(&o.config, "config", "", "configuration file of the agent")
	given := configFlags(c, "listen", "dir", "insecure-loopback")
	complete(c, "pid", completePIDs)
	c.ValidArgsFunction = words([]string{"heap", "allocs", "profile"})
	c.RunE = func(c *cobra.Command, args []string) error {
		o.kind = "heap"
		switch {
		case len(args) > 1:
			return usagef("one kind of profile is wanted, not %q", args)
		case c.Flags().Changed("pid") && o.pid <= 0:
			return usagef("%d is no PID", o.pid)
		case len(args) == 1:
			o.kind = args[0]
		}
		return printURL(c.OutOrStdout(), &o, given())
	}
	return c
}

// configFlags adds flags of the agent's configuration, those with the names or all; given is what was said by them, for
// config.Load.
func configFlags(c *cobra.Command, names ...string) (given func() map[string][]string) {
	set := c.Flags()
	values := make(map[string]func() []string)
	for _, f := range config.Flags() {
		switch {
		case len(names) > 0 && !slices.Contains(names, f.Name):
		case f.List:
			list := set.StringArray(f.Name, nil, f.Usage+"; repeatable")
			values[f.Name] = func() []string { return *list }
		case f.Bool:
			b := set.Bool(f.Name, f.Default == "true", f.Usage)
			values[f.Name] = func() []string { return []string{strconv.FormatBool(*b)} }
		default:
			s := set.String(f.Name, f.Default, f.Usage)
			values[f.Name] = func() []string { return []string{*s} }
		}
	}
	return func() map[string][]string {
		given := make(map[string][]string)
		for name, value := range values {
			if set.Changed(name) {
				given[name] = value()
			}
		}
		return given
	}
}

var profileKind = regexp.MustCompile(`^[a-z]+$`)

func printURL(w io.Writer, o *urlOptions, given map[string][]string) error {
	if !profileKind.MatchString(o.kind) {
		return usagef("%q is no kind of profile: give heap, allocs, profile, ...", o.kind)
	}
	c, err := config.Load(o.config, given)
	if err != nil {
		return err
	}
	path := "/debug/pprof/" + o.kind
	if o.kind == kindCPU {
		path = "/debug/pprof/profile"
	}
	if o.pid > 0 {
		path = "/pid/" + strconv.Itoa(o.pid) + path
	}
	agent := c.Web()
	u, err := agent.URL(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: start `pprofd agent`, which makes it, or name its directory by --dir or --config", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run `pprofd url` as the agent's user, by sudo", err)
	case err != nil:
		return err
	}
	_, err = fmt.Fprintln(w, u)
	return err
}
