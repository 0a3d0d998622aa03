package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/plan"
)

// sink takes the values of one scrape. Its methods take a family's name, a value, and the labels in the family's order.
type sink struct {
	to    chan<- prometheus.Metric
	descs map[string]*prometheus.Desc
}

func (s sink) counter(name string, v uint64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.descs[name], prometheus.CounterValue, float64(v), labels...)
}

func (s sink) gauge(name string, v float64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.descs[name], prometheus.GaugeValue, v, labels...)
}

func (s sink) flag(name string, v bool, labels ...string) {
	n := 0.0
	if v {
		n = 1
	}
	s.gauge(name, n, labels...)
}

// Buckets are shown from 125 us to 65.5 s, where a doubling ends: exactly what the engine counts, and numbers that a person can read.
const (
	firstShown = 125 * time.Microsecond
	lastShown  = 65536 * time.Millisecond
)

// times shows a histogram: every doubling, or every second one (of servers, of which there may be many).
func (s sink) times(name string, t *plan.Times, coarse bool, labels ...string) {
	if t == nil {
		t = &plan.Times{}
	}
	step := time.Duration(2)
	if coarse {
		step = 4
	}
	buckets := map[float64]uint64{}
	next, n := firstShown, uint64(0)
	for i, in := range t.Buckets {
		n += in
		if end := plan.BucketEnd(i); end == next {
			buckets[end.Seconds()] = n
			if next *= step; next > lastShown {
				break
			}
		}
	}
	s.to <- prometheus.MustNewConstHistogram(s.descs[name], t.Count, t.Sum.Seconds(), buckets, labels...)
}

func (s sink) classes(name string, by [6]uint64, labels ...string) {
	for class := 1; class < len(by); class++ {
		s.counter(name, by[class], append(labels[:len(labels):len(labels)], strconv.Itoa(class)+"xx")...)
	}
}

func (s sink) malformed(name string, by [h1.NumErrors]uint64, labels ...string) {
	for e, n := range by {
		if n > 0 { // there are many, and most are never met
			s.counter(name, n, append(labels[:len(labels):len(labels)], h1.Error(e).String())...)
		}
	}
}

func (s sink) engine(st engine.Stats) {
	for _, f := range st.Frontends {
		s.frontend(f)
	}
	for _, b := range st.Backends {
		s.backend(b)
		for _, v := range b.Servers {
			s.server(b.Name, v)
		}
	}
	for _, l := range st.Limits {
		s.counter("skein_limit_refused_total", l.Refused, l.Name)
	}
	s.gauge("skein_tls_pending_handshakes", float64(st.Handshakes))
	for i, l := range st.Loops {
		loop := strconv.Itoa(i)
		s.gauge("skein_loop_client_connections", float64(l.Clients), loop)
		s.gauge("skein_loop_server_connections", float64(l.Servers), loop)
		s.counter("skein_loop_iterations_total", l.Iterations, loop)
		s.counter("skein_loop_events_total", l.Events, loop)
		s.counter("skein_loop_sleeps_total", l.Sleeps, loop)
		s.counter("skein_loop_naps_total", l.Naps, loop)
		s.counter("skein_loop_posts_total", l.Posts, loop)
		s.counter("skein_loop_refused_posts_total", l.PostsFull, loop)
		s.counter("skein_loop_accept_pauses_total", l.Pauses, loop)
		s.to <- prometheus.MustNewConstMetric(s.descs["skein_loop_busy_seconds_total"], prometheus.CounterValue, l.Busy.Seconds(), loop)
	}
	s.counter("skein_access_log_written_lines_total", st.Log.Written)
	s.counter("skein_access_log_dropped_lines_total", st.Log.Dropped)
	s.flag("skein_access_log_up", st.Log.Problem == "")
}

func (s sink) frontend(f engine.FrontendStats) {
	s.gauge("skein_frontend_connections", float64(max(f.Open(), 0)), f.Name)
	s.counter("skein_frontend_connections_total", f.Connections, f.Name)
	s.counter("skein_frontend_requests_total", f.Requests, f.Name)
	s.counter("skein_frontend_received_bytes_total", f.BytesIn, f.Name)
	s.counter("skein_frontend_sent_bytes_total", f.BytesOut, f.Name)
	s.classes("skein_frontend_responses_total", f.Status, f.Name)
	for cause, n := range f.Failures {
		s.counter("skein_frontend_ends_total", n, f.Name, plan.Failure(cause).String())
	}
	s.malformed("skein_frontend_malformed_requests_total", f.Malformed, f.Name)
	s.counter("skein_frontend_idle_closed_total", f.Idle, f.Name)
	s.counter("skein_frontend_tls_handshakes_total", f.Handshakes, f.Name)
	s.counter("skein_frontend_tls_resumed_total", f.Resumed, f.Name)
	s.times("skein_frontend_head_seconds", f.Times[plan.SpanRequest], false, f.Name)
	s.times("skein_frontend_response_seconds", f.Times[plan.SpanResponse], false, f.Name)
	s.times("skein_frontend_total_seconds", f.Times[plan.SpanTotal], false, f.Name)
}

func (s sink) backend(b engine.BackendStats) {
	s.gauge("skein_backend_servers", float64(len(b.Servers)), b.Name)
	s.gauge("skein_backend_usable_servers", float64(b.Usable), b.Name)
	s.flag("skein_backend_panic", b.Panic, b.Name)
	s.gauge("skein_backend_active_requests", float64(b.Active), b.Name)
	s.gauge("skein_backend_queued_requests", float64(b.Waiting), b.Name)
	s.gauge("skein_backend_queued_requests_max", float64(b.MostWaiting), b.Name)
	s.counter("skein_backend_requests_total", b.Requests, b.Name)
	s.counter("skein_backend_received_bytes_total", b.BytesIn, b.Name)
	s.counter("skein_backend_sent_bytes_total", b.BytesOut, b.Name)
	s.classes("skein_backend_responses_total", b.Status, b.Name)
	for cause, n := range b.Failures {
		s.counter("skein_backend_ends_total", n, b.Name, plan.Failure(cause).String())
	}
	s.counter("skein_backend_retries_total", b.Retries, b.Name)
	s.counter("skein_backend_repeated_requests_total", b.Balance.Repeated, b.Name)
	s.counter("skein_backend_retries_over_budget_total", b.Balance.OverBudget, b.Name)
	s.counter("skein_backend_queued_requests_total", b.Balance.Queued, b.Name)
	s.counter("skein_backend_redispatches_total", b.Balance.Redispatched, b.Name)
	s.counter("skein_backend_panic_requests_total", b.Balance.Panicked, b.Name)
	s.counter("skein_backend_ejections_total", b.Balance.Ejected, b.Name)
	s.times("skein_backend_queue_seconds", b.Times[plan.SpanQueue], false, b.Name)
	s.times("skein_backend_connect_seconds", b.Times[plan.SpanConnect], false, b.Name)
	s.times("skein_backend_response_seconds", b.Times[plan.SpanResponse], false, b.Name)
	s.times("skein_backend_total_seconds", b.Times[plan.SpanTotal], false, b.Name)
}

func (s sink) server(backend string, v engine.ServerStats) {
	s.flag("skein_server_usable", v.Usable, backend, v.Name)
	for _, state := range []plan.Admin{plan.Enabled, plan.Drain, plan.Disabled} {
		s.flag("skein_server_admin_state", v.Admin == state, backend, v.Name, state.String())
	}
	s.gauge("skein_server_weight", float64(v.Weight), backend, v.Name)
	s.gauge("skein_server_slow_start_ratio", float64(v.Ramp)/100, backend, v.Name)
	s.flag("skein_server_ejected", !v.EjectedUntil.IsZero(), backend, v.Name)
	s.counter("skein_server_ejections_total", v.Ejections, backend, v.Name)
	s.gauge("skein_server_active_requests", float64(v.Active), backend, v.Name)
	s.gauge("skein_server_connections", float64(v.Open), backend, v.Name)
	s.counter("skein_server_connections_total", v.Connections, backend, v.Name)
	s.counter("skein_server_requests_total", v.Requests, backend, v.Name)
	s.counter("skein_server_reused_total", v.Reused, backend, v.Name)
	s.counter("skein_server_retries_total", v.Retries, backend, v.Name)
	s.counter("skein_server_received_bytes_total", v.BytesIn, backend, v.Name)
	s.counter("skein_server_sent_bytes_total", v.BytesOut, backend, v.Name)
	s.classes("skein_server_responses_total", v.Status, backend, v.Name)
	for f, n := range v.Failures {
		if kind := plan.Failure(f); kind.Connecting() || n > 0 { // the usual ones from the first scrape on
			s.counter("skein_server_failures_total", n, backend, v.Name, kind.String())
		}
	}
	s.malformed("skein_server_malformed_responses_total", v.Malformed, backend, v.Name)
	s.times("skein_server_connect_seconds", v.Times[plan.SpanConnect], true, backend, v.Name)
	s.times("skein_server_response_seconds", v.Times[plan.SpanResponse], true, backend, v.Name)
	s.times("skein_server_total_seconds", v.Times[plan.SpanTotal], true, backend, v.Name)
}

// node shows what a member of a cluster says of itself.
func (s sink) node(r api.NodeReport) {
	s.local(r)
	s.gauge("skein_revision_committed", float64(r.Revision.Committed))
	s.gauge("skein_revision_running", float64(r.Revision.Running))
	s.flag("skein_raft_leader", r.Raft.State == "leader")
	s.flag("skein_raft_quorum", r.Raft.Quorum)
	s.flag("skein_raft_voter", r.Raft.Voter)
	s.gauge("skein_raft_voters", float64(len(r.Raft.Voters)))
	s.counter("skein_raft_term_total", r.Raft.Term)
	s.counter("skein_raft_last_index_total", r.Raft.LastIndex)
	s.counter("skein_raft_commit_index_total", r.Raft.CommitIndex)
	s.counter("skein_raft_applied_index_total", r.Raft.AppliedIndex)
	s.gauge("skein_raft_last_contact_seconds", float64(r.Raft.LastContactMs)/1e3)
	if r.State != nil {
		s.gauge("skein_state_checksum", float64(r.State.Sum))
	}
	s.flag("skein_disk_ok", r.Disk.OK)
	s.gauge("skein_disk_sync_seconds", r.Disk.FsyncMs/1e3)
	s.flag("skein_guard_up", r.Guard.Running)
	s.flag("skein_guard_real_time", r.Guard.RealTime)
	s.gauge("skein_guard_lateness_seconds", r.Guard.LatenessMs/1e3)
	s.flag("skein_node_fit", r.Guard.Fit)
	for _, v := range r.VIPs {
		s.gauge("skein_vip_held", 1, v.Name)
		s.gauge("skein_vip_lease_seconds", float64(v.LeaseLeftMs)/1e3, v.Name)
	}
	for _, p := range r.Peers {
		s.flag("skein_peer_alive", p.Alive, p.Name)
		s.flag("skein_peer_fit", p.Fit, p.Name)
		if p.Reached != nil {
			s.flag("skein_peer_reached", *p.Reached, p.Name)
		}
		s.gauge("skein_peer_round_trip_seconds", float64(p.RTTUs)/1e6, p.Name)
	}
	for _, severity := range []api.Severity{api.Warning, api.Critical} {
		n := 0
		for _, a := range r.Alarms {
			if a.Severity == severity {
				n++
			}
		}
		s.gauge("skein_alarms", float64(n), string(severity))
	}
}

// local shows what a node knows without a cluster.
func (s sink) local(r api.NodeReport) {
	s.gauge("skein_start_time_seconds", float64(r.StartedAt.UnixMilli())/1e3)
	for _, v := range r.Servers {
		if v.Checked {
			s.flag("skein_server_check_up", v.Up, v.Backend, v.Server)
			s.gauge("skein_server_check_seconds", v.LatencyMs/1e3, v.Backend, v.Server)
		}
	}
	for _, t := range r.Tables {
		s.gauge("skein_sticky_entries", float64(t.Entries), t.Backend)
		s.gauge("skein_sticky_size", float64(t.Size), t.Backend)
		s.gauge("skein_sticky_pending", float64(t.Pending), t.Backend)
		s.counter("skein_sticky_learned_total", t.Learned, t.Backend)
		s.counter("skein_sticky_dropped_total", t.Dropped, t.Backend)
		s.counter("skein_sticky_expired_total", t.Expired, t.Backend)
		s.counter("skein_sticky_hits_total", t.Hits, t.Backend)
		s.counter("skein_sticky_misses_total", t.Misses, t.Backend)
	}
}
