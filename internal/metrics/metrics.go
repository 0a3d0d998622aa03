// Package metrics shows what a node has counted to Prometheus: one collector that reads everything when it is asked.
//
// It counts nothing itself, keeps nothing between two scrapes and decides nothing. The one rule: a family is declared once, in
// families, with its help, and docs/metrics.md is written from there.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/engine"
)

// Sources are what is asked at a scrape. Nil ones are not there: a witness carries no traffic.
type Sources struct {
	Version      string
	Engine       func() engine.Stats
	Node         func() api.NodeReport // of a member of a cluster
	Alone        func() api.NodeReport // of a node without one: StartedAt, Servers and Tables
	Certificates func() []api.CertificateStatus
}

// collector reads the sources at every scrape.
type collector struct {
	from  Sources
	descs map[string]*prometheus.Desc
}

func newCollector(from Sources) *collector {
	c := &collector{from: from, descs: map[string]*prometheus.Desc{}}
	for _, f := range families() {
		c.descs[f.name] = prometheus.NewDesc(f.name, f.help, f.labels, nil)
	}
	return c
}

// Describe names every family.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d
	}
}

// Collect reads the sources.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := sink{to, c.descs}
	s.gauge("skein_build_info", 1, c.from.Version, runtime.Version())
	if c.from.Engine != nil {
		s.engine(c.from.Engine())
	}
	if c.from.Node != nil {
		s.node(c.from.Node())
	}
	if c.from.Alone != nil {
		s.local(c.from.Alone())
	}
	if c.from.Certificates != nil {
		for _, cert := range c.from.Certificates() {
			s.gauge("skein_certificate_not_after_timestamp_seconds", float64(cert.NotAfter.Unix()), cert.Name)
		}
	}
}

// Handler answers scrapes at /metrics.
func Handler(from Sources) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(from), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "skein: the metrics are at /metrics") })
	return mux
}

// Serve answers scrapes on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// retryAfter is the pause between attempts to listen.
const retryAfter = time.Second

// Run listens on an address and serves until ctx ends. What keeps it from listening is said once and tried again: an address may
// be there later, and a node has more to do than to be watched.
func Run(ctx context.Context, address string, from Sources, log *slog.Logger) {
	h := Handler(from)
	said := ""
	for ctx.Err() == nil {
		l, err := net.Listen("tcp", address)
		if err == nil {
			log.Info("metrics are served", "address", l.Addr().String())
			err, said = Serve(ctx, l, h), ""
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Warn("metrics are not served", "why", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}
