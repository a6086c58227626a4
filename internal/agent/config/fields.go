package config

import (
	"strings"
	"time"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/internal/discover"
)

// field is a key of the file.
type field struct {
	key   string // sections and name, joined by dots
	flag  string // "": there is none
	def   string // the default, as YAML
	doc   string // what the key means, and what it may be
	value value
}

// section is a key that has keys below it.
type section struct{ key, doc string }

func sections() []section {
	return []section{
		{"cpu", "CPU profiles: where the processes are while they run on a CPU."},
		{"heap", "Heap profiles: what is in use, by where it was allocated, from the records of the processes' own runtimes."},
		{"allocs", "Profiles of what is allocated."},
		{"wall", "Profiles of where time passes: what all goroutines do, whether they run or wait. Each window has one, with the CPU profile of that window in it."},
		{"overhead", "What profiling may cost, all in all. Rates adapt to it: they fall at once, and rise slowly."},
		{"dir", "Profiles are kept as DIR/<service>/<pid>-<start>/<kind>-<time>.pb.gz, the newest of them."},
		{"spool", "Profiles wait here for the servers below, through outages and restarts. It is there where a server is."},
		{"auth", "Who may see profiles over HTTP. /metrics, /healthz and /readyz are open."},
		{"auth.tls", "Encryption. PEM files, which are read again when they change."},
		{"kubernetes", "Names and labels of pods."},
		{"containers", "Names and images of containers."},
		{"log", "The log, on standard error."},
	}
}

// fields is the table of all keys, in the order in which they are printed. The values are those of c.
func (c *Config) fields() []field {
	fs := append(c.profileFields(), c.overheadFields()...)
	fs = append(fs, c.placeFields()...)
	fs = append(fs, c.serverFields()...)
	fs = append(fs, c.frontFields()...)
	fs = append(fs, c.targetFields()...)
	fs = append(fs, c.metadataFields()...)
	return append(fs, c.agentFields()...)
}

func (c *Config) overheadFields() []field {
	return []field{
		{"overhead.cpu", "max-overhead", "1%", "of the time of the machine's CPUs: the agent, its BPF programs, interrupts and probes; 0.01% to 100%; 0%: no limit, " +
			"and rates do not adapt", percentValue(&c.Overhead.CPU)},
		{"overhead.memory", "", "100MiB", "of RSS, above which less is kept, and rates fall; 16MiB to 1TiB", sizeValue(&c.Overhead.Memory, 16<<20, 1<<40)},
		{"overhead.load", "", "0.7", "of the machine (/proc/pressure/cpu, else the load average of a CPU), above which as little as possible is done; 0.05 to 1000",
			floatValue(&c.Overhead.Load, 0.05, 1000)},
	}
}

func (c *Config) profileFields() []field {
	return []field{
		{"window", "window", "10s", "how long a profile of CPU time, or of wall, is; 1s to 1h", durationValue(&c.Window, time.Second, time.Hour)},
		{"cpu.enabled", "", "true", "true or false", boolValue(&c.CPU.Enabled)},
		{"cpu.hz", "cpu-hz", "19", "samples a second and CPU at the start; 1 to 10000", intValue(&c.CPU.Hz, 10000)},
		{"cpu.min_hz", "", "1", "not fewer, whatever it costs; 1 to 10000", intValue(&c.CPU.MinHz, 10000)},
		{"cpu.max_hz", "", "0", "not more, however little it costs; 0: cpu.hz", countValue(&c.CPU.MaxHz, 10000)},
		{"cpu.kernel", "", "true", "also the kernel's functions, below those that called it", boolValue(&c.CPU.Kernel)},
		{"heap.enabled", "", "true", "true or false", boolValue(&c.Heap.Enabled)},
		{"heap.interval", "", "1m", "how often; 1s to 24h", durationValue(&c.Heap.Interval, time.Second, 24*time.Hour)},
		{"allocs.enabled", "", "auto", "true or false; auto: where there is a server that takes profiles", choiceValue(&c.Allocs.When, "auto", "true", "false")},
		{"allocs.source", "", "read", "read: the records of the runtime; probe: probes in its code, which cost the process something; " +
			"auto: probe where there are no records", choiceValue(&c.Allocs.Source, "read", "probe", "auto")},
		{"allocs.interval", "", "1m", "how long a profile is; 1s to 24h", durationValue(&c.Allocs.Interval, time.Second, 24*time.Hour)},
		{"allocs.alloc_interval", "", "512KiB", "probe: bytes of allocation for each sample, on average; 1KiB to 1GiB",
			sizeValue(&c.Allocs.AllocInterval, 1<<10, 1<<30)},
		{"allocs.budget", "", "0.7", "probe: percent of one CPU that it may cost a process; above, it is there for a part of the time; 0: no limit",
			floatValue(&c.Allocs.Budget, 0, 100)},
		{"block.enabled", "", "true", "of processes that count where they wait (runtime.SetBlockProfileRate)", boolValue(&c.Block.Enabled)},
		{"block.interval", "", "1m", "how long a profile is; 1s to 24h", durationValue(&c.Block.Interval, time.Second, 24*time.Hour)},
		{"mutex.enabled", "", "true", "of processes that count for which mutexes they wait (runtime.SetMutexProfileFraction)", boolValue(&c.Mutex.Enabled)},
		{"mutex.interval", "", "1m", "how long a profile is; 1s to 24h", durationValue(&c.Mutex.Interval, time.Second, 24*time.Hour)},
		{"goroutine.enabled", "", "false", "what all goroutines do at a moment; costs 5 ms for 1,000 of them", boolValue(&c.Goroutine.Enabled)},
		{"goroutine.interval", "", "1m", "how often; 1s to 24h. Of heap, allocs, block, mutex and goroutine the shortest interval is that of all",
			durationValue(&c.Goroutine.Interval, time.Second, 24*time.Hour)},
		{"wall.enabled", "", "false", "costs a process half a millisecond and more of CPU time a window, and a tenth a snapshot; processes take turns where that is more than the budget has for it", boolValue(&c.Wall.Enabled)},
		{"wall.hz", "", "19", "snapshots of a process with up to 1,000 goroutines in a second, of n thousand an n-th of that; fewer where the budget does not " +
			"allow it; 1 to 1000", intValue(&c.Wall.Hz, 1000)},
	}
}

func (c *Config) placeFields() []field {
	return []field{
		{"dir.path", "dir", "/var/lib/pprofd", `where; it has to belong to the agent's user; "": no files`, textValue(&c.Dir.Path, nil)},
		{"dir.max_size", "", "1GiB", "of all files; the oldest are removed first; 0: no limit", sizeValue(&c.Dir.MaxSize, 0, 1<<60)},
		{"dir.max_age", "", "168h", "since the start of a profile's window; 0s: no limit", durationValue(&c.Dir.MaxAge, 0, 1<<63-1)},
		{"dir.max_files", "", "1000000", "1 to 1000000", intValue(&c.Dir.MaxFiles, file.MaxStoreFiles)},
		{"spool.path", "", `""`, `where; it has to belong to the agent's user; "": .spool in dir.path`, textValue(&c.Spool.Path, nil)},
		{"spool.max_size", "", "512MiB", "of all that waits; the oldest is dropped first; 1MiB to 1TiB", sizeValue(&c.Spool.MaxSize, 1<<20, 1<<40)},
		{"spool.max_age", "", "1h", "what has waited for longer is dropped; 1m to 168h", durationValue(&c.Spool.MaxAge, time.Minute, 168*time.Hour)},
	}
}

func (c *Config) frontFields() []field {
	return []field{
		{"listen", "listen", "127.0.0.1:6061", `HTTP: HOST:PORT, or unix:/PATH for a socket of mode 0600; "": nowhere`, textValue(&c.Listen, nil)},
		{"auth.token_file", "", `""`, `file with the token that clients have to send; "": the file token in dir.path, which is made at the first start`,
			textValue(&c.Auth.TokenFile, nil)},
		{"auth.insecure_loopback", "insecure-loopback", "false", "everybody who has an account on this host may see all profiles",
			boolValue(&c.Auth.InsecureLoopback)},
		{"auth.hosts", "", "[]", "names that clients may call this server by, besides IP addresses, localhost and the name in listen",
			listValue(&c.Auth.Hosts, checkHost)},
		{"auth.tls.cert", "", `""`, "certificate of the server", textValue(&c.Auth.TLS.Cert, nil)},
		{"auth.tls.key", "", `""`, "its private key", textValue(&c.Auth.TLS.Key, nil)},
		{"auth.tls.client_ca", "", `""`, "authorities that sign the certificates of clients, which they need then in place of the token",
			textValue(&c.Auth.TLS.ClientCA, nil)},
	}
}

func (c *Config) targetFields() []field {
	const selection = "; an expression such as exe=/srv/* or namespace=shop,label.app=web or unit=nginx*"
	return []field{
		{"select", "select", "[]", "processes that are profiled: those that match one of these; none: every Go process" + selection,
			selectorsValue(&c.Select)},
		{"exclude", "exclude", "[]", "processes that are not", selectorsValue(&c.Exclude)},
		{"relabel_configs", "", "[]", "rules that change labels and drop processes, as Prometheus has them", relabelValue(&c.Relabel)},
		{"labels", "", "{}", "labels of all profiles", labelsValue(&c.Labels)},
	}
}

func (c *Config) metadataFields() []field {
	k := &c.Kubernetes
	return []field{
		{"kubernetes.enabled", "", "auto", "true: the kubelet, or the API server, is asked; auto: where one is given, or this runs in a pod that has " +
			"the variable NODE_NAME; false: nobody is", choiceValue(&k.Enabled, "auto", "true", "false")},
		{"kubernetes.kubelet", "", `""`, "URL of the kubelet, as https://10.0.0.7:10250", textValue(&k.Kubelet, checkURL)},
		{"kubernetes.api", "", `""`, `URL of the API server; "" in a pod that has the variable NODE_NAME: that of the cluster`, textValue(&k.API, checkURL)},
		{"kubernetes.node", "", `""`, "name of this node, for the API server", textValue(&k.Node, nil)},
		{"kubernetes.token_file", "", `""`, "file with the token for these", textValue(&k.TokenFile, checkAbsolute)},
		{"kubernetes.ca_file", "", `""`, `certificates that sign theirs; "": those of the system`, textValue(&k.CAFile, checkAbsolute)},
		{"kubernetes.insecure_kubelet", "", "false", "the kubelet's certificate is not verified: whoever is in between gets the token",
			boolValue(&k.InsecureKubelet)},
		{"containers.sockets", "", "[" + strings.Join(discover.DefaultSockets(), ", ") + "]",
			"Unix sockets of container runtimes: cri:PATH or docker:PATH; those that are not there are passed over",
			listValue(&c.Containers.Sockets, discover.CheckSocket)},
	}
}

func (c *Config) agentFields() []field {
	return []field{
		{"log.level", "log-level", "info", "debug, info, warn or error", choiceValue(&c.Log.Level, "debug", "info", "warn", "error")},
		{"log.format", "log-format", "text", "text or json", choiceValue(&c.Log.Format, "text", "json")},
		{"max_targets", "", "4000", "processes that are profiled at a time; 1 to 16384", intValue(&c.MaxTargets, 16384)},
	}
}

// Flag is a flag of the command line that stands for a key, and wins over the file.
type Flag struct {
	Name, Usage string
	Default     string // "" where it is a list, which may be given several times
	Bool, List  bool
}

// Flags lists the keys that are flags, too.
func Flags() (flags []Flag) {
	for _, f := range new(Config).fields() {
		if f.flag == "" {
			continue
		}
		flag := Flag{Name: f.flag, Usage: f.doc, Default: f.def, Bool: f.value.bool, List: f.value.list}
		if flag.List {
			flag.Default = ""
		}
		flags = append(flags, flag)
	}
	return flags
}
