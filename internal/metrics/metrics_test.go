package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/internal/golden"
)

// report is what a node of a cluster would say, with something of everything.
func report() api.NodeReport {
	return api.NodeReport{
		Name: "lb1", StartedAt: time.Unix(1_700_000_000, 0),
		Revision: api.RevisionReport{Committed: 3, Running: 2},
		Raft:     api.RaftReport{State: "leader", Leader: "lb1", Quorum: true, Voter: true, Voters: []string{"lb1", "lb2", "lb3"}, Term: 7, LastIndex: 90},
		State:    &api.StateReport{From: 80, To: 90, Sum: 1<<32 - 1},
		Disk:     api.DiskReport{OK: true, FsyncMs: 1.5},
		Guard:    api.GuardReport{Running: true, Fit: true, LatenessMs: 0.25},
		VIPs:     []api.HeldVIP{{Name: "public", LeaseLeftMs: 55}},
		Peers:    []api.PeerReport{{Name: "lb2", Alive: true, RTTUs: 180, Reached: new(bool)}},
		Servers:  []api.ServerReport{{Backend: "b", Server: "s1", Checked: true, Up: true, LatencyMs: 2}},
		Tables:   []api.TableReport{{Backend: "b", Entries: 5, Size: 100, Hits: 9}},
		Alarms:   []api.Alarm{{Severity: api.Warning}, {Severity: api.Warning}},
	}
}

// traffic is an engine that has served one request, refused one, and had none of its servers answer a third.
func traffic(t *testing.T) *engine.Engine {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	t.Cleanup(s.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := strings.Cut(addr, ":")
	c, diags := config.Parse("edge.hcl", []byte(fmt.Sprintf(`frontend "f" {
  bind    = ["127.0.0.1"]
  http    = %s
  backend = "b"
}
backend "b" {
  server "s1" { address = %q }
}
`, port, s.Listener.Addr())))
	if c == nil {
		t.Fatal(diags)
	}
	e, err := engine.New(engine.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := e.Apply(c); err != nil {
		t.Fatal(err)
	}
	get := func() int {
		resp, err := http.Get("http://" + addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if got := get(); got != 200 {
		t.Fatal(got)
	}
	e.SetUsable("b", "s1", false)
	if got := get(); got != 503 {
		t.Fatal(got)
	}
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(raw, "GET / HTTP/1.1\r\n\r\n")
	raw.Read(make([]byte, 1000))
	raw.Close()
	return e
}

// scrape asks as Prometheus does, and returns the families by name.
func scrape(t *testing.T, h http.Handler) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	text := w.Body.String()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("promlint: %s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	got, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// value returns the value of the one metric with these labels ("a=1,b=2"), or the count of a histogram.
func value(t *testing.T, got map[string]*dto.MetricFamily, name, labels string) float64 {
	t.Helper()
	f := got[name]
	if f == nil {
		t.Fatalf("there is no %s", name)
	}
	for _, m := range f.Metric {
		var have []string
		for _, l := range m.Label {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		if strings.Join(have, ",") != labels {
			continue
		}
		switch {
		case m.Counter != nil:
			return m.Counter.GetValue()
		case m.Gauge != nil:
			return m.Gauge.GetValue()
		}
		return float64(m.Histogram.GetSampleCount())
	}
	t.Fatalf("%s has no {%s}", name, labels)
	return 0
}

func TestAScrapeShowsWhatWasCounted(t *testing.T) {
	e := traffic(t)
	got := scrape(t, Handler(Sources{Version: "1.2.3", Engine: e.Stats, Node: report}))
	for _, tc := range []struct {
		name, labels string
		want         float64
	}{
		{"skein_frontend_requests_total", "frontend=f", 2},
		{"skein_frontend_responses_total", "class=2xx,frontend=f", 1},
		{"skein_frontend_responses_total", "class=4xx,frontend=f", 1},
		{"skein_frontend_responses_total", "class=5xx,frontend=f", 1},
		{"skein_frontend_ends_total", "cause=none,frontend=f", 1},
		{"skein_frontend_ends_total", "cause=no_server,frontend=f", 1},
		{"skein_frontend_ends_total", "cause=client_malformed,frontend=f", 1},
		{"skein_frontend_ends_total", "cause=server_closed,frontend=f", 0},
		{"skein_frontend_malformed_requests_total", "frontend=f,reason=missing_host", 1},
		{"skein_frontend_total_seconds", "frontend=f", 3},
		{"skein_frontend_response_seconds", "frontend=f", 1},
		{"skein_backend_ends_total", "backend=b,cause=no_server", 1},
		{"skein_backend_usable_servers", "backend=b", 0},
		{"skein_server_requests_total", "backend=b,server=s1", 1},
		{"skein_server_connect_seconds", "backend=b,server=s1", 1},
		{"skein_server_usable", "backend=b,server=s1", 0},
		{"skein_server_admin_state", "backend=b,server=s1,state=enabled", 1},
		{"skein_server_check_up", "backend=b,server=s1", 1},
		{"skein_access_log_up", "", 1},
		{"skein_raft_leader", "", 1},
		{"skein_raft_voters", "", 3},
		{"skein_state_checksum", "", 1<<32 - 1},
		{"skein_vip_lease_seconds", "vip=public", 0.055},
		{"skein_peer_round_trip_seconds", "peer=lb2", 0.00018},
		{"skein_peer_reached", "peer=lb2", 0},
		{"skein_alarms", "severity=warning", 2},
		{"skein_alarms", "severity=critical", 0},
		{"skein_sticky_hits_total", "backend=b", 9},
	} {
		if v := value(t, got, tc.name, tc.labels); v != tc.want {
			t.Errorf("%s{%s} = %v, want %v", tc.name, tc.labels, v, tc.want)
		}
	}
	if got["go_goroutines"] == nil || got["process_cpu_seconds_total"] == nil {
		t.Error("the metrics of the runtime and of the process are missing")
	}
}

// `skein run` belongs to no cluster: what its probes and tables say is shown under the same names, and nothing of a cluster.
func TestANodeAloneShowsWhatNeedsNoCluster(t *testing.T) {
	got := scrape(t, Handler(Sources{Alone: report}))
	for _, tc := range []struct {
		name, labels string
		want         float64
	}{
		{"skein_server_check_up", "backend=b,server=s1", 1},
		{"skein_server_check_seconds", "backend=b,server=s1", 0.002},
		{"skein_sticky_entries", "backend=b", 5},
		{"skein_start_time_seconds", "", 1_700_000_000},
	} {
		if v := value(t, got, tc.name, tc.labels); v != tc.want {
			t.Errorf("%s{%s} = %v, want %v", tc.name, tc.labels, v, tc.want)
		}
	}
	for name := range got {
		for _, of := range []string{"skein_raft_", "skein_guard_", "skein_vip_", "skein_peer_", "skein_disk_", "skein_state_", "skein_revision_", "skein_alarms"} {
			if strings.HasPrefix(name, of) {
				t.Errorf("it shows %s", name)
			}
		}
	}
}

func TestEveryFamilyIsShown(t *testing.T) {
	var bad plan.Totals
	bad.Malformed[h1.MissingHost], bad.Failures[plan.ServerClosed] = 1, 1
	all := func() engine.Stats {
		return engine.Stats{
			Frontends: []engine.FrontendStats{{Name: "f", Totals: bad}},
			Backends:  []engine.BackendStats{{Name: "b", Totals: bad, Servers: []engine.ServerStats{{Name: "s1", Totals: bad}}}},
			Limits:    []engine.LimitStats{{Name: "l", Refused: 1}},
			Loops:     []engine.LoopStats{{}},
		}
	}
	certs := func() []api.CertificateStatus {
		return []api.CertificateStatus{{Name: "shop", NotAfter: time.Unix(1_800_000_000, 0)}}
	}
	got := scrape(t, Handler(Sources{Engine: all, Node: report, Certificates: certs}))
	if v := value(t, got, "skein_certificate_not_after_timestamp_seconds", "certificate=shop"); v != 1_800_000_000 {
		t.Errorf("the certificate ends at %v", v)
	}
	for _, f := range families() {
		if got[f.name] == nil {
			t.Errorf("%s is declared and never shown", f.name)
		} else if shown := strings.ToLower(got[f.name].GetType().String()); shown != string(f.kind) {
			t.Errorf("%s is a %s and was declared as a %s", f.name, shown, f.kind)
		}
	}
}

func TestBucketsAreExact(t *testing.T) {
	var st plan.Stats
	ms := int64(time.Millisecond)
	for _, d := range []int64{ms/8 - 1, ms / 8, ms - 1, ms, 3 * ms, 65536*ms - 1, 65536 * ms, 99999 * ms} {
		st.Loop(0).Took(plan.SpanTotal, d)
	}
	all := func() engine.Stats {
		return engine.Stats{Frontends: []engine.FrontendStats{{Name: "f", Totals: st.Totals()}}}
	}
	h := scrape(t, Handler(Sources{Engine: all}))["skein_frontend_total_seconds"].Metric[0].Histogram
	if n := len(h.Bucket); n != 21 { // 20 doublings, and all
		t.Errorf("%d buckets", n)
	}
	below := map[float64]uint64{0.000125: 1, 0.00025: 2, 0.001: 3, 0.002: 4, 0.004: 5, 32.768: 5, 65.536: 6}
	for _, b := range h.Bucket {
		if want, ok := below[b.GetUpperBound()]; ok && b.GetCumulativeCount() != want {
			t.Errorf("%d took less than %v s, want %d", b.GetCumulativeCount(), b.GetUpperBound(), want)
		}
		delete(below, b.GetUpperBound())
	}
	if len(below) > 0 || h.GetSampleCount() != 8 {
		t.Errorf("no buckets for %v; %d samples", below, h.GetSampleCount())
	}
}

func TestAnAddressThatIsTakenIsTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := taken.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	said := make(chan string, 100)
	go func() {
		defer close(done)
		Run(ctx, addr, Sources{}, slog.New(slog.NewTextHandler(writer(said), nil)))
	}()
	if line := <-said; !strings.Contains(line, "address already in use") {
		t.Errorf("said %q", line)
	}
	taken.Close()
	if line := <-said; !strings.Contains(line, "metrics are served") {
		t.Errorf("said %q", line)
	}
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	<-done
}

type writer chan string

func (w writer) Write(b []byte) (int, error) { w <- string(b); return len(b), nil }

// The reference is the table of families.
func TestTheReferenceHasEveryFamily(t *testing.T) {
	const page, begin, end = "../../docs/metrics.md", "<!-- families -->\n", "<!-- end -->\n"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	var table strings.Builder
	table.WriteString("\n| metric | kind | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range families() {
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.name, f.kind, strings.Join(f.labels, ", "), f.help)
	}
	table.WriteString("\n")
	golden.File(t, page, before+begin+table.String()+end+after)
}
