package web

import "github.com/prometheus/client_golang/prometheus"

// stats are the server's own metrics.
type stats struct{ requests, refusals *prometheus.CounterVec }

func newStats() stats {
	s := stats{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pprofd_http_requests_total", Help: "HTTP requests that were answered, by handler.",
		}, []string{"handler"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pprofd_http_refused_total", Help: "HTTP requests and connections that were refused, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"host", "origin", "authentication", "connections"} {
		s.refusals.WithLabelValues(reason)
	}
	return s
}

func (s *stats) request(pattern string) { s.requests.WithLabelValues(pattern).Inc() }
func (s *stats) refused(reason string)  { s.refusals.WithLabelValues(reason).Inc() }

// Describe and Collect implement prometheus.Collector.
func (s *stats) Describe(c chan<- *prometheus.Desc) {
	s.requests.Describe(c)
	s.refusals.Describe(c)
}

// Collect implements prometheus.Collector.
func (s *stats) Collect(c chan<- prometheus.Metric) {
	s.requests.Collect(c)
	s.refusals.Collect(c)
}
