package agent

import (
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pprofd/pprofd/export/file"
	"github.com/pprofd/pprofd/export/queue"
	"github.com/pprofd/pprofd/export/spool"
	"github.com/pprofd/pprofd/profiler"
)

// metrics are what the agent says of itself. Each scrape asks all parts for their numbers; nothing is counted twice.
type metrics struct {
	a *Agent

	cpu, allocs *totals
	memory      *readTotals
	wall        *wallTotals

	mu   sync.Mutex
	past map[string]handoverStats // by destination: of queues that have ended
	now  map[string][]*handover   // the others: one may be handing on yet what it has, while the next is there
}

func newMetrics(a *Agent) *metrics {
	return &metrics{
		a: a, cpu: newTotals(), allocs: newTotals(), memory: newReadTotals(), wall: newWallTotals(), past: make(map[string]handoverStats), now: make(map[string][]*handover),
	}
}

// destination makes q the queue of its destination.
func (m *metrics) destination(q *handover) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now[q.name] = append(slices.DeleteFunc(m.now[q.name], func(before *handover) bool {
		if before.ended() {
			m.past[q.name] = addHandover(m.past[q.name], before.Stats())
		}
		return before.ended()
	}), q)
}

func addHandover(past, now handoverStats) handoverStats {
	now.Delivered += past.Delivered
	now.Failed += past.Failed
	now.Dropped += past.Dropped
	now.Took += past.Took
	now.Depth += past.Depth
	now.Bytes += past.Bytes
	if now.LastSuccess.Before(past.LastSuccess) {
		now.LastSuccess = past.LastSuccess
	}
	return now
}

func (m *metrics) handovers() map[string]handoverStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]handoverStats)
	for name, list := range m.now {
		all[name] = m.past[name]
		for _, q := range list {
			all[name] = addHandover(all[name], q.Stats())
		}
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
	descHz        = desc("sampling_hertz", "Samples a second and CPU, at present; of wall snapshots a second of each process, in the last window.", "kind")
	descInterval  = desc("reading_interval_seconds", "Time between two readings of what a process's runtime keeps of itself.")
	descReadings  = desc("memory_readings_total", "Processes whose profiles of memory and contention were read.", "result")
	descReadTime  = desc("memory_reading_seconds_total", "Time that this took, building profiles included.")
	descSites     = desc("memory_sites_total", "Sites of allocations and of contention that were read.")
	descMemory    = desc("memory_profiles", "Processes by what their runtime does about its memory profile.", "state")
	descSnapshots = desc("wall_snapshots_total", "Snapshots of the goroutines of a process.", "result")
	descSeen      = desc("wall_goroutines_total", "Goroutines in these snapshots.")
	descStalled   = desc("wall_stalled_total", "Processes that were given up, since their memory did not answer.")
	descLeft      = desc("wall_left_total", "Windows of processes without a profile, since it was the turn of others: the budget is too small for all.")
	descWaits     = desc("contention_profiles", "Processes by what their runtime does about its block and mutex profiles.", "kind", "state")
	descProcesses = desc("discovery_processes", "Go processes that run now.", "verdict")
	descLooks     = desc("discovery_looks_total", "Processes that were looked at as they executed a program.")
	descFound     = desc("discovery_found_total", "Go programs that processes were found to run, wanted or not.")
	descLate      = desc("discovery_late_total", "Looks that took too long to be waited for.")
	descUnread    = desc("discovery_unreadable_total", "Processes that could not be looked at.", "reason")
	descScans     = desc("discovery_scans_total", "Scans of all processes.")
	descAsked     = desc("discovery_metadata_requests_total", "Questions to container runtimes and Kubernetes.", "source")
	descMetadata  = desc("discovery_metadata_errors_total", "Those that failed.", "source")
	descQueue     = desc("export_queue_profiles", "Profiles that wait to be delivered.", "destination")
	descQueueSize = desc("export_queue_bytes", "Memory that they take, estimated.", "destination")
	descOldest    = desc("export_queue_oldest_seconds", "How long the oldest of the profiles that wait has waited.", "destination")
	descExports   = desc("exports_total", "Profiles by what became of them.", "destination", "result")
	descExporting = desc("export_seconds_total", "Time that deliveries took.", "destination")
	descAttempts  = desc("export_attempts_total", "Deliveries that were attempted and have come to an end.", "destination")
	descDropped   = desc("export_dropped_total", "Profiles that the destination will not get.", "destination", "reason")
	descSamples   = desc("export_samples_total", "Samples (of memory: objects) in profiles that were delivered.", "destination")
	descDroppedS  = desc("export_dropped_samples_total", "Samples in those that will not be.", "destination", "reason")
	descExported  = desc("export_last_success_timestamp_seconds", "When a profile was delivered last.", "destination")
	descFiles     = desc("store_files", "Files in the directory of profiles.")
	descBytes     = desc("store_bytes", "Their size, as the disk counts.")
	descRemoved   = desc("store_removed_total", "Files that were removed, mostly to keep to the limits.", "reason")

	descSpool         = desc("spool_bytes", "What waits on disk for servers, as the disk counts.")
	descSpoolMemory   = desc("spool_memory_bytes", "What waits in memory, since the disk does not take it.")
	descSpoolOldest   = desc("spool_oldest_seconds", "How long the oldest of it has waited.")
	descSpoolBatches  = desc("spool_batches", "Batches of profiles that wait.")
	descSpoolProfiles = desc("spool_profiles_total", "Profiles that were put there.")
	descSpoolSamples  = desc("spool_samples_total", "Samples in them.")
	descSpoolRefused  = desc("spool_rejected_total", "Profiles that could not be put there, whatever the disk: no server gets them.")
	descSpoolRemoved  = desc("spool_removed_total", "Batches that were removed before all servers had them.", "reason")
	descSpoolFailures = desc("spool_failures_total", "Failures.", "of")

	descNotRemoved = desc("store_remove_failures_total", "Files that the limits asked to remove, and that could not be.")
)

// Describe says nothing: what there is depends on the configuration.
func (*metrics) Describe(chan<- *prometheus.Desc) {}

// scrape collects constant metrics.
type scrape chan<- prometheus.Metric

func (s scrape) counter(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (s scrape) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// Collect asks all parts.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := scrape(ch)
	s.gauge(descBuild, 1, m.a.o.Version, runtime.Version())
	c, pipe, _ := m.a.present()
	for _, k := range pipe.kinds {
		up, fails, _ := k.state()
		s.gauge(descUp, number(up), k.name)
		s.counter(descFailures, float64(fails), k.name)
	}
	s.budget(pipe.keeper)
	if c.CPU.Enabled {
		s.gauge(descHz, pipe.hertz(c), profiler.KindCPU)
	}
	s.sampler(profiler.KindCPU, m.cpu)
	s.sampler(profiler.KindAllocs, m.allocs)
	if len(reads(c)) > 0 {
		s.gauge(descInterval, readingInterval(c).Seconds())
	}
	s.readings(m.memory)
	s.walls(m.wall)
	s.discovery(m.a)
	for name, q := range m.handovers() {
		s.handover(name, q)
	}
	if pipe.store != nil {
		s.store(pipe.store.Stats())
	}
	spool, servers := m.a.servers.stats()
	if spool != nil {
		s.spool(spool)
	}
	for name, q := range servers {
		s.server(name, q)
	}
}

func (s scrape) store(n file.StoreStats) {
	s.gauge(descFiles, float64(n.Files))
	s.gauge(descBytes, float64(n.Bytes))
	for reason, files := range map[string]uint64{
		"size": n.RemovedSize, "count": n.RemovedCount, "age": n.RemovedAge, "disk full": n.RemovedFull, "leftover": n.Leftovers,
	} {
		s.counter(descRemoved, float64(files), reason)
	}
	s.counter(descNotRemoved, float64(n.NotRemoved))
}

func (s scrape) spool(n *spool.Stats) {
	s.gauge(descSpool, float64(n.Bytes))
	s.gauge(descSpoolMemory, float64(n.Memory))
	s.gauge(descSpoolOldest, n.Oldest.Seconds())
	s.gauge(descSpoolBatches, float64(n.Batches))
	s.counter(descSpoolProfiles, float64(n.Written.Profiles))
	s.counter(descSpoolSamples, float64(n.Written.Samples))
	s.counter(descSpoolRefused, float64(n.Rejected))
	for reason, batches := range map[string]int64{
		spool.TooOld: n.RemovedAge, spool.SpoolSize: n.RemovedSize, spool.DiskFull: n.RemovedFull, spool.Corrupt: n.RemovedCorrupt,
	} {
		s.counter(descSpoolRemoved, float64(batches), reason)
	}
	for of, times := range map[string]int64{
		"write": n.Failures, "profile": n.BadProfiles, "acks_read": n.BadAcks, "acks_write": n.AckFailures, "leftover": n.Leftovers,
	} {
		s.counter(descSpoolFailures, float64(times), of)
	}
}

func (s scrape) server(name string, q queue.Stats) {
	s.gauge(descQueue, float64(q.Pending.Profiles), name)
	s.gauge(descQueueSize, float64(q.Bytes), name)
	s.gauge(descOldest, q.Oldest.Seconds(), name)
	dropped := int64(0)
	for reason, n := range q.Dropped {
		dropped += n.Profiles
		s.counter(descDropped, float64(n.Profiles), name, reason)
		s.counter(descDroppedS, float64(n.Samples), name, reason)
	}
	for result, times := range map[string]int64{"delivered": q.Delivered.Profiles, "failed": q.Failures, "dropped": dropped} {
		s.counter(descExports, float64(times), name, result)
	}
	s.counter(descSamples, float64(q.Delivered.Samples), name)
	s.counter(descAttempts, float64(q.Sends), name)
	s.counter(descExporting, q.Took.Seconds(), name)
	if !q.LastSuccess.IsZero() {
		s.gauge(descExported, float64(q.LastSuccess.UnixMilli())/1e3, name)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s scrape) sampler(kind string, t *totals) {
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
	s.cost(kind, &n)
	s.counter(descBuilding, n.Windows.Building.Seconds(), kind)
	if running {
		s.gauge(descTargets, float64(n.Targets-n.Exited), kind)
	}
}

func (s scrape) readings(t *readTotals) {
	n, running := t.get()
	if !running && n.Readings == 0 {
		return
	}
	s.counter(descReadings, float64(n.Readings), "ok")
	s.counter(descReadings, float64(n.Failed), "failed")
	s.counter(descReadTime, n.Took.Seconds())
	s.counter(descSites, float64(n.Sites))
	s.counter(descUser, n.CPUTime.Seconds(), kindMemory)
	for state, processes := range n.States {
		s.gauge(descMemory, float64(processes), state)
	}
	for kind, states := range n.Waits {
		for state, processes := range states {
			s.gauge(descWaits, float64(processes), kind, state)
		}
	}
}

func (s scrape) walls(t *wallTotals) {
	n, running := t.get()
	if !running && n.Targeted == 0 {
		return
	}
	const kind = profiler.KindWall
	for d, v := range map[*prometheus.Desc]uint64{
		descLost: n.Lost, descTargetsN: uint64(n.Targeted), descUnopened: n.Unopened, descWindows: n.Windows.Ended, descProfiles: n.Windows.Profiles,
		descUndeliv: n.Windows.Failures,
	} {
		s.counter(d, float64(v), kind)
	}
	s.counter(descSnapshots, float64(n.Snapshots), "ok")
	s.counter(descSnapshots, float64(n.Failed), "failed")
	s.counter(descSeen, float64(n.Goroutines))
	s.counter(descStalled, float64(n.Stalled))
	s.counter(descLeft, float64(n.Left))
	s.counter(descUser, n.CPUTime.Seconds(), kind)
	s.counter(descBuilding, n.Windows.Building.Seconds(), kind)
	if running {
		s.gauge(descTargets, float64(n.Targets), kind)
		s.gauge(descHz, n.Hz, kind)
	}
}

func (s scrape) discovery(a *Agent) {
	n := a.discovery.Stats()
	s.counter(descLooks, float64(n.Looks))
	s.counter(descFound, float64(n.Found))
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

func (s scrape) handover(name string, q handoverStats) {
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
