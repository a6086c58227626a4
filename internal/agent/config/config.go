// Package config is the configuration of `pprofd agent`: what it may say, what it says where nothing is said, and what is
// wrong with it.
//
// The table of fields (fields.go) is the only list of keys: decoding, defaults, documentation and flags come from it.
package config

import (
	"time"

	"github.com/prometheus/prometheus/model/relabel"

	"github.com/pprofd/pprofd/internal/agent/web"
	"github.com/pprofd/pprofd/internal/discover"
)

// Config is the configuration, complete: what the file and the flags do not say has its default.
type Config struct {
	Overhead   Overhead
	Window     time.Duration
	CPU        CPU
	Heap       Memory
	Allocs     Allocs
	Block      Memory
	Mutex      Memory
	Goroutine  Memory
	Wall       Wall
	Dir        Dir
	Spool      Spool
	Pyroscope  []Pyroscope
	Parca      []Parca
	OTLP       []OTLP
	Listen     string // "": nowhere
	Auth       Auth
	Select     []discover.Selector
	Exclude    []discover.Selector
	Relabel    []*relabel.Config
	Labels     map[string]string
	Kubernetes Kubernetes
	Containers discover.Containers
	Log        Log
	MaxTargets int
}

// Overhead is what profiling may cost.
type Overhead struct {
	CPU    float64 // percent of the machine's CPUs; 0: no limit, and nothing adapts
	Memory int64   // bytes of RSS
	Load   float64
}

// CPU profiles.
type CPU struct {
	Enabled      bool
	Hz           int
	MinHz, MaxHz int // within which the rate adapts; MaxHz 0: Hz
	Kernel       bool
}

// Highest is the highest rate that profiling adapts to.
func (c *CPU) Highest() int { return max(c.Hz, c.MaxHz) }

// Memory is a kind of profile that is read from time to time, of what the runtimes of processes keep of themselves.
type Memory struct {
	Enabled  bool
	Interval time.Duration
}

// Wall is what all goroutines do, whatever it is.
type Wall struct {
	Enabled bool
	Hz      int
}

// Allocs are profiles of allocations.
type Allocs struct {
	Memory               // Enabled is what When comes to
	When          string // auto, true, false
	Source        string // read, probe, auto
	AllocInterval int64  // bytes
	Budget        float64
}

// Dir is where files go.
type Dir struct {
	Path     string
	MaxSize  int64 // bytes
	MaxAge   time.Duration
	MaxFiles int
}

// Auth says who may see profiles over HTTP.
type Auth struct {
	TokenFile        string
	InsecureLoopback bool
	Hosts            []string
	TLS              web.TLS
}

// Kubernetes says who is asked for pods.
type Kubernetes struct {
	Enabled string // auto, true, false
	discover.Kubernetes
}

// Log says how to log.
type Log struct{ Level, Format string }

// Web is what the HTTP front needs.
func (c *Config) Web() web.Config {
	return web.Config{
		Listen: c.Listen, DataDir: c.Dir.Path,
		TokenFile: c.Auth.TokenFile, InsecureLoopback: c.Auth.InsecureLoopback, TLS: c.Auth.TLS, Hosts: c.Auth.Hosts,
	}
}
