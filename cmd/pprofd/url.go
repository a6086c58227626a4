package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pprofd/pprofd/internal/agent/config"
)

// urlOptions are the flags of url.
type urlOptions struct {
	pid     int
	service string
	config  string
	kind    string
}

func newURL() *cobra.Command {
	var o urlOptions
	c := &cobra.Command{
		Use:   "url [flags] [KIND]",
		Short: "Print the agent's URL of a profile, for go tool pprof, or of its web pages",
		Long: `Url prints where pprofd agent on this host has a profile, with the token that the agent asks for:

  go tool pprof $(sudo pprofd url -p 4242 heap)

KIND is what net/http/pprof calls it: heap (where none is given), allocs, profile (or cpu), ...; or wall; or ui, for the page that shows
profiles in a browser: of the process, of the service, or the first page, which lists all. With --service it is that of all
processes of a service together, without -p and --service one of the agent itself. What net/http/pprof takes may be added:
?seconds=10, ?debug=1. What the agent's command line says of --config, --listen, --dir and --insecure-loopback has to be said
here, too. The agent's /targets lists processes and services.

Who has the URL can see the profiles of all processes: it is as secret as the token in it.`,
		Example: `  go tool pprof $(sudo pprofd url -p 4242 heap)
  go tool pprof -seconds 30 $(sudo pprofd url -p 4242 cpu)
  go tool pprof $(sudo pprofd url --service api allocs)
  go tool pprof $(sudo pprofd url heap)        # of the agent itself
  xdg-open $(sudo pprofd url ui)               # all processes, in a browser`,
	}
	c.Flags().IntVarP(&o.pid, "pid", "p", 0, "process; without it and --service, the agent itself")
	c.Flags().StringVar(&o.service, "service", "", "all processes of the service of this name")
	c.Flags().StringVar(&o.config, "config", "", "configuration file of the agent")
	given := configFlags(c, "listen", "dir", "insecure-loopback")
	complete(c, "pid", completePIDs)
	c.ValidArgsFunction = words([]string{"heap", "allocs", "profile", "wall", "goroutine", "block", "mutex", kindUI})
	c.RunE = func(c *cobra.Command, args []string) error {
		o.kind = "heap"
		switch {
		case len(args) > 1:
			return usagef("one kind of profile is wanted, not %q", args)
		case c.Flags().Changed("pid") && o.pid <= 0:
			return usagef("%d is no PID", o.pid)
		case o.pid > 0 && o.service != "":
			return usagef("a process or a service is wanted, not -p %d and --service %s", o.pid, o.service)
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
		return usagef("%q is no kind of profile: give heap, allocs, profile, ..., or ui", o.kind)
	}
	if o.kind == kindUI && dots(o.service) {
		return usagef("a service called %q has no page, since browsers take that for a step along the path: give one of its processes by -p", o.service)
	}
	c, err := config.Load(o.config, given)
	if err != nil {
		return err
	}
	agent := c.Web()
	prefix, rest := o.path()
	u, err := agent.URL(prefix + rest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: start `pprofd agent`, which makes it, or name its directory by --dir or --config", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run `pprofd url` as the agent's user, by sudo", err)
	case err != nil:
		return err
	}
	u.RawPath = escaped(prefix) + rest
	_, err = fmt.Fprintln(w, u)
	return err
}

// path is of whom a profile is wanted, and which.
func (o *urlOptions) path() (prefix, rest string) {
	rest = "/debug/pprof/" + o.kind
	switch {
	case o.kind == kindCPU:
		rest = "/debug/pprof/profile"
	case o.kind == kindUI && o.pid == 0 && o.service == "":
		rest = "/"
	case o.kind == kindUI:
		rest = "/ui/"
	}
	switch {
	case o.pid > 0:
		prefix = "/pid/" + strconv.Itoa(o.pid)
	case o.service != "":
		prefix = servicePath + o.service
	}
	return prefix, rest
}

const kindUI = "ui" // no kind of profile: pages

const servicePath = "/service/"

// escaped keeps slashes in the name of a service from being those of the path, and names of dots from being steps along it.
func escaped(prefix string) string {
	name, ok := strings.CutPrefix(prefix, servicePath)
	switch {
	case !ok:
		return prefix
	case dots(name):
		return servicePath + strings.ReplaceAll(name, ".", "%2E")
	}
	return servicePath + url.PathEscape(name)
}

// dots says whether a name means a step along a path: browsers take it so, however it is written.
func dots(name string) bool { return name == "." || name == ".." }
