package metrics

// kind is what a family is to Prometheus.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// family is one metric with all its labels.
type family struct {
	name   string
	kind   kind
	labels []string
	help   string
}

// families are all of ours, in the order of the reference.
func families() []family {
	var all []family
	labels := []string{}
	add := func(k kind, name, help string, more ...string) {
		all = append(all, family{"skein_" + name, k, append(labels[:len(labels):len(labels)], more...), help})
	}
	add(gauge, "build_info", "The version of this node. Always 1.", "version", "goversion")

	labels = []string{"frontend"}
	add(gauge, "frontend_connections", "Connections of clients that are open.")
	add(counter, "frontend_connections_total", "Connections of clients that were accepted.")
	add(counter, "frontend_requests_total", "Requests, or TCP sessions, that were begun.")
	add(counter, "frontend_received_bytes_total", "Bytes from clients.")
	add(counter, "frontend_sent_bytes_total", "Bytes to clients.")
	add(counter, "frontend_responses_total", "Responses to clients, by class of status.", "class")
	add(counter, "frontend_ends_total", "Requests, sessions, and connections without either, that have ended, by their cause.", "cause")
	add(counter, "frontend_malformed_requests_total", "Requests that were refused, by what was wrong with them.", "reason")
	add(counter, "frontend_idle_closed_total", "Connections that were closed after their idle time.")
	add(counter, "frontend_tls_handshakes_total", "TLS handshakes that were completed.")
	add(counter, "frontend_tls_resumed_total", "TLS handshakes that resumed an earlier session.")
	add(histogram, "frontend_head_seconds", "Time from the first byte of a request's head to its last, of those that took more than one read.")
	add(histogram, "frontend_response_seconds", "Time from the server being reached to its response's head.")
	add(histogram, "frontend_total_seconds", "Time from the first byte of a request, or the beginning of a session, to its end.")

	labels = []string{"backend"}
	add(gauge, "backend_servers", "Servers that are configured.")
	add(gauge, "backend_usable_servers", "Servers that take new clients.")
	add(gauge, "backend_panic", "1 while fewer servers than minimum_healthy are well and health is ignored.")
	add(gauge, "backend_active_requests", "Requests and sessions under way, waiting ones included.")
	add(gauge, "backend_queued_requests", "Requests and sessions that wait for a place on a server.")
	add(gauge, "backend_queued_requests_max", "The most that ever waited on one event loop.")
	add(counter, "backend_requests_total", "Requests and sessions.")
	add(counter, "backend_received_bytes_total", "Bytes from clients.")
	add(counter, "backend_sent_bytes_total", "Bytes to clients.")
	add(counter, "backend_responses_total", "Responses to clients, by class of status.", "class")
	add(counter, "backend_ends_total", "Requests and sessions that have ended, by their cause.", "cause")
	add(counter, "backend_retries_total", "Attempts on another server: the one before could not be reached, or the request is sent a second time.")
	add(counter, "backend_repeated_requests_total", "Requests that were sent a second time.")
	add(counter, "backend_retries_over_budget_total", "Requests that were not sent a second time because the budget was spent.")
	add(counter, "backend_queued_requests_total", "Requests and sessions that waited for a place.")
	add(counter, "backend_redispatches_total", "Requests whose own server had no place, and that went to another.")
	add(counter, "backend_panic_requests_total", "Requests that were balanced while health was ignored.")
	add(counter, "backend_ejections_total", "Times that a server was left out because traffic found it failing.")
	add(histogram, "backend_queue_seconds", "Time in the queue, of those that waited.")
	add(histogram, "backend_connect_seconds", "Time to connect to a server, of new connections.")
	add(histogram, "backend_response_seconds", "Time from the server being reached to its response's head.")
	add(histogram, "backend_total_seconds", "Time from the first byte of a request, or the beginning of a session, to its end.")

	labels = []string{"backend", "server"}
	add(gauge, "server_usable", "1 when health permits its use.")
	add(gauge, "server_admin_state", "1 for the state that an operator wants: enabled, drain or disabled.", "state")
	add(gauge, "server_weight", "The weight in force.")
	add(gauge, "server_slow_start_ratio", "The part of its weight that it has got to: 1, but for a slow start.")
	add(gauge, "server_ejected", "1 while it is left out because traffic found it failing.")
	add(counter, "server_ejections_total", "Times that it was left out because traffic found it failing.")
	add(gauge, "server_active_requests", "Requests and sessions under way.")
	add(gauge, "server_connections", "Open connections to it, unused ones included.")
	add(counter, "server_connections_total", "Connections to it that came about.")
	add(counter, "server_requests_total", "Requests and sessions that were given to it.")
	add(counter, "server_reused_total", "Requests that were sent over a connection that had been used before.")
	add(counter, "server_retries_total", "Requests that were sent again because an idle connection had just been closed.")
	add(counter, "server_received_bytes_total", "Bytes from clients.")
	add(counter, "server_sent_bytes_total", "Bytes to clients.")
	add(counter, "server_responses_total", "Its responses, by class of status.", "class")
	add(counter, "server_failures_total", "What it did wrong, by cause.", "cause")
	add(counter, "server_malformed_responses_total", "Responses that could not be parsed, by what was wrong with them.", "reason")
	add(histogram, "server_connect_seconds", "Time to connect to it, of new connections.")
	add(histogram, "server_response_seconds", "Time from being reached to its response's head.")
	add(histogram, "server_total_seconds", "Time from the first byte of a request, or the beginning of a session, to its end.")
	add(gauge, "server_check_up", "1 when this node's probes find it well.")
	add(gauge, "server_check_seconds", "How long the last probe took.")

	labels = []string{"limit"}
	add(counter, "limit_refused_total", "Requests and connections of single clients beyond the limit.")

	labels = []string{}
	add(gauge, "tls_pending_handshakes", "TLS handshakes that go on, or wait for their turn.")

	labels = []string{"loop"}
	add(gauge, "loop_client_connections", "Connections of clients.")
	add(gauge, "loop_server_connections", "Connections to servers, unused ones included.")
	add(counter, "loop_iterations_total", "Turns of the event loop.")
	add(counter, "loop_events_total", "Events that were handled.")
	add(counter, "loop_sleeps_total", "Blocking waits for events.")
	add(counter, "loop_naps_total", "Moments in which a busy loop waited for more events to come before it looked.")
	add(counter, "loop_posts_total", "Messages from elsewhere.")
	add(counter, "loop_refused_posts_total", "Messages that were refused because the mailbox was full.")
	add(counter, "loop_accept_pauses_total", "Times that accepting was paused for lack of room: descriptors, or max_connections.")
	add(counter, "loop_busy_seconds_total", "Time not spent waiting for events.")

	labels = nil
	add(counter, "access_log_written_lines_total", "Lines of the access log that were written.")
	add(counter, "access_log_dropped_lines_total", "Lines of the access log that were lost, because writing was too slow or impossible.")
	add(gauge, "access_log_up", "0 while the access log cannot be written.")

	add(gauge, "start_time_seconds", "When this node started, in seconds since 1970.")
	add(gauge, "revision_committed", "The newest revision of the configuration that this node's log holds.")
	add(gauge, "revision_running", "The revision that this node serves.")
	add(gauge, "raft_leader", "1 on the leader of the cluster.")
	add(gauge, "raft_quorum", "1 while this node knows of a leader that a majority follows.")
	add(gauge, "raft_voter", "1 when this node votes.")
	add(gauge, "raft_voters", "Nodes that vote.")
	add(counter, "raft_term_total", "The term: elections that were begun since the cluster was founded.")
	add(counter, "raft_last_index_total", "Entries that the log has had.")
	add(counter, "raft_commit_index_total", "Entries that are committed.")
	add(counter, "raft_applied_index_total", "Entries that this node has applied.")
	add(gauge, "raft_last_contact_seconds", "Time since the leader was heard; 0 on the leader.")
	add(gauge, "state_checksum", "Checksum of this node's copy of what the cluster has agreed on, sticky tables apart: on all nodes the same, but for moments.")
	add(gauge, "disk_ok", "0 once the disk of the log has failed.")
	add(gauge, "disk_sync_seconds", "The slowest of recent writes to the log.")
	add(gauge, "guard_up", "1 while the guard runs, without which no address can be held.")
	add(gauge, "guard_real_time", "1 when the guard has real-time priority.")
	add(gauge, "guard_lateness_seconds", "How late the guard's own timer was lately.")
	add(gauge, "node_fit", "1 while this node may hold addresses.")
	add(gauge, "vip_held", "1 for a virtual address that this node holds.", "vip")
	add(gauge, "vip_lease_seconds", "How long this node may hold it without a renewal.", "vip")
	add(gauge, "peer_alive", "1 while the guard of that node is heard.", "peer")
	add(gauge, "peer_fit", "1 while that node may hold addresses.", "peer")
	add(gauge, "peer_reached", "1 while that node is reached over TCP too, tried every 5 seconds; absent while one of the two has no vote.", "peer")
	add(gauge, "peer_round_trip_seconds", "Time for a heartbeat there and back.", "peer")
	add(gauge, "alarms", "Alarms that this node raises; `skein status` shows them.", "severity")

	add(gauge, "certificate_not_after_timestamp_seconds", "When the certificate ends: of its chains the first, in seconds since 1970.", "certificate")

	labels = []string{"backend"}
	add(gauge, "sticky_entries", "Entries of the sticky table.")
	add(gauge, "sticky_size", "Entries that the sticky table may have.")
	add(gauge, "sticky_pending", "Entries that were learned and are not committed yet.")
	add(counter, "sticky_learned_total", "Entries that this node has learned.")
	add(counter, "sticky_dropped_total", "Entries that were lost because too many were learned at once.")
	add(counter, "sticky_expired_total", "Entries whose time was over.")
	add(counter, "sticky_hits_total", "Look-ups that found a server.")
	add(counter, "sticky_misses_total", "Look-ups that found none.")
	return all
}
