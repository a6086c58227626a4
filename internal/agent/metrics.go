package agent

import (
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/profiler"
)

// metrics are what the agent says of itself. Each scrape asks all parts for their numbers; nothing is counted twice.
type metrics struct {
	a *Agent

	cpu, allocs *totals
	memory      *readTotals

	mu   sync.Mutex
	past map[string]QueueStats // by destination: of queues that have ended
	now  map[string]*queue
}

func newMetrics(a *Agent) *metrics {
	return &metrics{
		a: a, cpu: newTotals(), allocs: newTotals(), memory: newReadTotals(), past: make(map[string]QueueStats), now: make(map[string]*queue),
	}
}

// destination makes q the queue of its destination.
func (m *metrics) destination(q *queue) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before := m.now[q.name]; before != nil {
		m.past[q.name] = addQueue(m.past[q.name], before.Stats())
	}
	m.now[q.name] = q
}

func addQueue(past, now QueueStats) QueueStats {
	now.Delivered += past.Delivered
	now.Failed += past.Failed
	now.Dropped += past.Dropped
	now.Took += past.Took
	if now.LastSuccess.IsZero() {
		now.LastSuccess = past.LastSuccess
	}
	return now
}

func (m *metrics) queues() map[string]QueueStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]QueueStats)
	for name, q := range m.now {
		all[name] = addQueue(m.past[name], q.Stats())
	}
	return all
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("pprofd_"+name, help, labels, nil)
}

var (
	descBuild     = desc("build_info", "Version of pprofd, always 1.", "version", "go_version")
	descUp        = desc("kind_up", "Whether this kind of profile is being taken.", "kind")
	descFailures  = desc("kind_failures_total", "How often this kind of profile had to be begun again after a failure.", "kind")
	descRecorded  = desc("samples_recorded_total", "Samples that the kernel took, lost and unwanted ones included.", "kind")
	descLost      = desc("samples_lost_total", "Samples that are in the profiles as [lost].", "kind")
	descUnwanted  = desc("samples_unwanted_total", "Samples of processes that turned out to be no targets.", "kind")
	descCut       = desc("stacks_truncated_total", "Stacks that end in [truncated].", "kind")
	descBroken    = desc("stacks_broken_total", "Stacks that end in [broken].", "kind")
	descEvents    = desc("events_lost_total", "Exec and exit events that found no room in the ring buffer.", "kind")
	descStale     = desc("samples_stale_total", "Samples of processes that had taken over the PID of a target.", "kind")
	descNoRoom    = desc("targets_refused_total", "Processes that found the table of targets full.", "kind")
	descTargets   = desc("targets", "Processes that are being profiled.", "kind")
	descTargetsN  = desc("targets_total", "Processes that have been profiled.", "kind")
	descUnopened  = desc("target_failures_total", "Processes that were to be profiled and could not be opened.", "kind")
	descWindows   = desc("windows_total", "Windows that have ended.", "kind")
	descBuilding  = desc("building_seconds_total", "Time that building profiles took.", "kind")
	descProfiles  = desc("profiles_total", "Profiles that were made.", "kind")
	descUndeliv   = desc("profiles_undelivered_total", "Profiles that no destination took.", "kind")
	descHz        = desc("sampling_hertz", "Samples a second and CPU.", "kind")
	descInterval  = desc("reading_interval_seconds", "Time between two readings of a process's memory profile.")
	descReadings  = desc("memory_readings_total", "Memory profiles that were read.", "result")
	descReadTime  = desc("memory_reading_seconds_total", "Time that reading memory profiles took, building included.")
	descSites     = desc("memory_sites_total", "Allocation sites that were read.")
	descMemory    = desc("memory_profiles", "Processes by what their runtime does about its memory profile.", "state")
	descProcesses = desc("discovery_processes", "Go processes that run now.", "verdict")
	descLooks     = desc("discovery_looks_total", "Processes that were looked at as they executed a program.")
	descLate      = desc("discovery_late_total", "Looks that took too long to be waited for.")
	descUnread    = desc("discovery_unreadable_total", "Processes that could not be looked at.", "reason")
	descScans     = desc("discovery_scans_total", "Scans of all processes.")
	descAsked     = desc("discovery_metadata_requests_total", "Questions to container runtimes and Kubernetes.", "source")
	descMetadata  = desc("discovery_metadata_errors_total", "Those that failed.", "source")
	descQueue     = desc("export_queue_profiles", "Profiles that wait to be delivered.", "destination")
	descQueueSize = desc("export_queue_bytes", "Memory that they take, estimated.", "destination")
	descExports   = desc("exports_total", "Profiles by what became of them.", "destination", "result")
	descExporting = desc("export_seconds_total", "Time that deliveries took.", "destination")
	descExported  = desc("export_last_success_timestamp_seconds", "When a profile was delivered last.", "destination")
	descFiles     = desc("store_files", "Files in the directory of profiles.")
	descBytes     = desc("store_bytes", "Their size, as the disk counts.")
	descRemoved   = desc("store_removed_total", "Files that were removed, mostly to keep to the limits.", "reason")

	descNotRemoved = desc("store_remove_failures_total", "Files that the limits asked to remove, and that could not be.")
)

// Describe says nothing: what there is depends on the configuration.
func (*metrics) Describe(chan<- *prometheus.Desc) {}

// sink collects constant metrics.
type sink chan<- prometheus.Metric

func (s sink) counter(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// Collect asks all parts.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := sink(ch)
	s.gauge(descBuild, 1, m.a.o.Version, runtime.Version())
	c, pipe, _ := m.a.present()
	for _, k := range pipe.kinds {
		up, fails, _ := k.state()
		s.gauge(descUp, number(up), k.name)
		s.counter(descFailures, float64(fails), k.name)
	}
	if c.CPU.Enabled {
		s.gauge(descHz, float64(c.CPU.Hz), profiler.KindCPU)
	}
	s.sampler(profiler.KindCPU, m.cpu)
	s.sampler(profiler.KindAllocs, m.allocs)
	if c.Heap.Enabled || c.Allocs.Enabled {
		s.gauge(descInterval, readingInterval(c).Seconds())
	}
	s.readings(m.memory)
	s.discovery(m.a)
	for name, q := range m.queues() {
		s.queue(name, q)
	}
	s.store(pipe.store.Stats())
}

func (s sink) store(n file.StoreStats) {
	s.gauge(descFiles, float64(n.Files))
	s.gauge(descBytes, float64(n.Bytes))
	for reason, files := range map[string]uint64{
		"size": n.RemovedSize, "count": n.RemovedCount, "age": n.RemovedAge, "disk full": n.RemovedFull, "leftover": n.Leftovers,
	} {
		s.counter(descRemoved, float64(files), reason)
	}
	s.counter(descNotRemoved, float64(n.NotRemoved))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s sink) sampler(kind string, t *totals) {
	n, running := t.get()
	if !running && n.Targets == 0 {
		return
	}
	for d, v := range map[*prometheus.Desc]uint64{
		descRecorded: n.Recorded, descLost: n.Lost, descUnwanted: n.Unwanted, descCut: n.Truncated, descBroken: n.Broken,
		descEvents: n.LostEvents, descStale: n.StalePID, descNoRoom: n.NoRoom, descUnopened: n.Failed, descTargetsN: uint64(n.Targets),
		descWindows: n.Windows.Ended, descProfiles: n.Windows.Profiles, descUndeliv: n.Windows.Failures,
	} {
		s.counter(d, float64(v), kind)
	}
	s.counter(descBuilding, n.Windows.Building.Seconds(), kind)
	if running {
		s.gauge(descTargets, float64(n.Targets-n.Exited), kind)
	}
}

func (s sink) readings(t *readTotals) {
	n, running := t.get()
	if !running && n.Readings == 0 {
		return
	}
	s.counter(descReadings, float64(n.Readings), "ok")
	s.counter(descReadings, float64(n.Failed), "failed")
	s.counter(descReadTime, n.Took.Seconds())
	s.counter(descSites, float64(n.Sites))
	for state, processes := range n.States {
		s.gauge(descMemory, float64(processes), state)
	}
}

func (s sink) discovery(a *Agent) {
	n := a.discovery.Stats()
	s.counter(descLooks, float64(n.Looks))
	s.counter(descLate, float64(n.Late))
	s.counter(descScans, float64(n.Scans))
	for verdict, processes := range n.Processes {
		s.gauge(descProcesses, float64(processes), string(verdict))
	}
	for name, source := range n.Sources {
		s.counter(descAsked, float64(source.Asked), name)
		s.counter(descMetadata, float64(source.Errors), name)
	}
	for reason, times := range n.Unreadable {
		s.counter(descUnread, float64(times), reason)
	}
}

func (s sink) queue(name string, q QueueStats) {
	s.gauge(descQueue, float64(q.Depth), name)
	s.gauge(descQueueSize, float64(q.Bytes), name)
	for result, times := range map[string]uint64{"delivered": q.Delivered, "failed": q.Failed, "dropped": q.Dropped} {
		s.counter(descExports, float64(times), name, result)
	}
	s.counter(descExporting, q.Took.Seconds(), name)
	if !q.LastSuccess.IsZero() {
		s.gauge(descExported, float64(q.LastSuccess.UnixMilli())/1e3, name)
	}
}
