package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

var (
	runs     = flag.Int("lab.runs", 1, "how often each scenario is played")
	binary   = flag.String("lab.binary", "", "the skein to test; by default it is built from this tree")
	results  = flag.String("lab.results", "", "directory to write the figures to")
	changes  = flag.Int("lab.changes", 100, "how many configuration changes are made under load")
	overload = flag.Duration("lab.overload", 20*time.Second, "how long the machine is burned while nothing may move")
	keep     = flag.Bool("lab.keep", false, "keep the nodes' data and logs")

	enterErr error
)

func TestMain(m *testing.M) {
	enterErr = lab.Enter()
	flag.Parse()
	os.Exit(runAll(m))
}

// runAll builds the binary where none is given, runs the tests and removes it again.
func runAll(m *testing.M) int {
	if *binary == "" && enterErr == nil && !testing.Short() {
		dir, err := os.MkdirTemp("", "skein-lab-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		*binary = filepath.Join(dir, "skein")
		build := exec.Command("go", "build", "-o", *binary, "../../cmd/skein")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build skein: %v\n%s", err, out)
			return 1
		}
	}
	if abs, err := filepath.Abs(*binary); err == nil && *binary != "" {
		*binary = abs // nodes are started from other directories
	}
	return m.Run()
}

// Addresses and ports of the stage.
var vip = netip.MustParseAddr("198.18.0.100")

const (
	webPort  = 8080
	echoPort = 7000
	tcpPort  = 5432
	// patience is for what has no limit of its own. The machine may be busy.
	patience = 60 * time.Second
	// calm is how long traffic must be good before an event counts as over, and so before the next one.
	calm = time.Second
	// served is how long it must be good at the beginning, when nothing has happened yet.
	served = 200 * time.Millisecond
)

// stage is a running cluster with traffic through it.
type stage struct {
	t       *testing.T
	ctx     context.Context
	dir     string // for everything on disk
	world   *lab.World
	fleet   *fleet.Fleet
	servers []server
	db      netip.AddrPort // of the TCP server
	client  *lab.Host
	load    *lab.Load // fresh connections
	keep    *lab.Load // one that is kept alive
	control *lab.Load // straight to a web server, past the cluster: how well this machine keeps time
	watch   *lab.ARPWatch
	start   time.Time // of the traffic
	head    string    // of the configuration
}

// server is a web server behind the cluster.
type server struct {
	name string
	addr netip.AddrPort
}

// newStage builds three balancers, three web servers, an echo server behind a TCP frontend, a client and a watcher, and starts
// traffic.
func newStage(t *testing.T) *stage {
	t.Helper()
	return newStageWith(t, webOf, echoOf)
}

// webOf and echoOf start the lab's own servers on a host.
func webOf(s *stage, h *lab.Host) netip.AddrPort {
	w, err := h.ServeHTTP(h.Name, webPort)
	s.must(err)
	return w.Addr
}

func echoOf(s *stage, h *lab.Host) netip.AddrPort {
	addr, err := h.ServeEcho(echoPort)
	s.must(err)
	return addr
}

// newStageWith does so with other servers: web starts a web server on a host, db whatever is behind the TCP frontend.
func newStageWith(t *testing.T, web, db func(*stage, *lab.Host) netip.AddrPort) *stage {
	t.Helper()
	s := newCluster(t, web, db)
	s.traffic()
	return s
}

// traffic applies the configuration of the stage and starts clients.
func (s *stage) traffic() {
	s.t.Helper()
	s.trafficOn(s.config())
}

// trafficOn does so with another configuration.
func (s *stage) trafficOn(text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.must(s.fleet.Nodes()[0].Apply(ctx, text, "the lab's configuration"))
	s.held()
	s.load = &lab.Load{Target: netip.AddrPortFrom(vip, 80)}
	s.keep = &lab.Load{Target: netip.AddrPortFrom(vip, 80), KeepAlive: true}
	s.control = &lab.Load{Target: s.servers[0].addr, KeepAlive: true, Every: 10 * time.Millisecond, Deadline: 10 * time.Second}
	s.start = time.Now()
	for _, l := range []*lab.Load{s.load, s.keep, s.control} {
		s.background("the client", func(ctx context.Context) error { return l.Run(ctx, s.client) })
	}
	s.begins()
}

// held waits until somebody holds the address that has just been configured, and all vote that will. The address is asked for while the
// nodes become voters: its first claim takes four seconds by RFC 5227.
func (s *stage) held() {
	s.t.Helper()
	s.until("somebody holds the address", func() bool { return s.holder() != "" })
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.must(s.fleet.Voting(ctx))
}

// begins waits until the clients, who have just been started, are served.
func (s *stage) begins() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	o, err := s.load.Record.Settled(ctx, s.start, served)
	if err != nil {
		s.t.Fatalf("the client is not served: %d of %d requests failed (%v): %v", o.Failed, o.Requests, o.Errors, err)
	}
}

// newWorld builds an empty world.
func newWorld(t *testing.T) *stage {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes on a network of their own: not with -short")
	}
	if enterErr != nil {
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	s := &stage{t: t, ctx: t.Context()}
	dir, err := os.MkdirTemp("", "skein-lab-") // not t.TempDir: its path is too long for a unix socket
	s.must(err)
	s.dir = dir
	t.Cleanup(func() {
		if *keep {
			t.Logf("data and logs: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	s.world, err = lab.New(slog.New(slog.DiscardHandler))
	s.must(err)
	t.Cleanup(func() {
		if err := s.world.Close(); err != nil {
			t.Errorf("take the world down: %v", err)
		}
	})
	return s
}

// newCluster builds the hosts and the cluster, which has no configuration yet, and starts the watcher.
func newCluster(t *testing.T, web, db func(*stage, *lab.Host) netip.AddrPort) *stage {
	t.Helper()
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	for _, name := range []string{"lb1", "lb2", "lb3"} {
		_, err := s.fleet.Add(name)
		s.must(err)
	}
	s.bootOn(web, db)
	return s
}

func (s *stage) logsOnFailure() {
	t := s.t
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range s.fleet.Nodes() {
				t.Logf("--- the end of %s's log\n%s", n.Name, n.LogTail(40))
			}
		}
	})
}

// stageOn makes a stage of the fleet as it was prepared.
func (s *stage) stageOn(web, db func(*stage, *lab.Host) netip.AddrPort) {
	s.t.Helper()
	s.bootOn(web, db)
	s.traffic()
}

// bootOn starts the servers and the fleet, which has no configuration yet and may not have all of its voters, and the watcher.
func (s *stage) bootOn(web, db func(*stage, *lab.Host) netip.AddrPort) {
	s.t.Helper()
	for _, name := range []string{"web1", "web2", "web3"} {
		s.servers = append(s.servers, server{name, web(s, s.host(name))})
	}
	s.db = db(s, s.host("db1"))
	s.client = s.host("client")
	watcher := s.host("watcher")

	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.must(s.fleet.Found(ctx, func(node, command string) { s.t.Logf("%s: %s", node, command) }))
	s.watch = &lab.ARPWatch{Addr: vip}
	s.background("the watcher", func(ctx context.Context) error { return s.watch.Run(ctx, watcher) })
}

// config is the configuration of the stage.
func (s *stage) config() string {
	text := s.head + fmt.Sprintf(`vip "public" { address = "%v/24" }

frontend "shop" {
  vip     = "public"
  http    = 80
  backend = "shop"
}

frontend "db" {
  vip     = "public"
  tcp     = %d
  backend = "db"
}

backend "db" {
  check "tcp" {}
  server "db1" { address = "%v" }
}

backend "shop" {
  balance = "least_conn"
  check "http" {
    path     = "/healthz"
    interval = "500ms"
    timeout  = "400ms"
  }
`, vip, tcpPort, s.db)
	for _, w := range s.servers {
		text += fmt.Sprintf("  server %q { address = %q }\n", w.name, w.addr)
	}
	return text + "}\n"
}

func (s *stage) host(name string) *lab.Host {
	s.t.Helper()
	h, err := s.world.AddHost(name)
	s.must(err)
	return h
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// background runs f until the test ends.
func (s *stage) background(who string, f func(context.Context) error) {
	t := s.t
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// until waits for something that the wire, a client or a node shows.
func (s *stage) until(what string, ok func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			s.t.Fatalf("still not after %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// holder is the name of the host that answers for the address.
func (s *stage) holder() string { return s.watch.Holder(s.world) }

// holding is the node that answers for the address.
func (s *stage) holding() *fleet.Node {
	s.t.Helper()
	n := s.fleet.Node(s.holder())
	if n == nil {
		s.t.Fatalf("the address is held by %q, which is no node", s.holder())
	}
	return n
}

// blink is for how long nobody may seem to answer: one ARP answer that comes later than the next question, on a host that is busy, is no
// move. What clients saw is judged by their requests.
const blink = 100 * time.Millisecond

// heldThroughout checks that nobody but holder has answered for the address since then, and that it has.
func (s *stage) heldThroughout(holder string, since time.Time) {
	s.t.Helper()
	for _, r := range s.watch.Timeline(s.world, since) {
		switch {
		case len(r.Holders) == 1 && r.Holders[0] == holder:
		case len(r.Holders) == 0 && r.To.Sub(r.From) < blink:
		default:
			s.t.Errorf("from %v on, for %v, %v answered for the address, want always %s", r.From.Sub(since), r.To.Sub(r.From), r.Holders, holder)
		}
	}
}

// stalled is the longest that a request past the cluster took since then: for so long the machine itself stood still.
func (s *stage) stalled(since time.Time) time.Duration {
	var d time.Duration
	for _, o := range s.control.Record.Since(since) {
		d = max(d, o.Took)
	}
	return d
}

// others are the nodes but n.
func (s *stage) others(n *fleet.Node) []*lab.Host {
	var hs []*lab.Host
	for _, o := range s.fleet.Nodes() {
		if o != n {
			hs = append(hs, o.Host)
		}
	}
	return hs
}

// settled waits until fresh connections have been good for a while, and returns what they saw since then.
func (s *stage) settled(since time.Time) lab.Outage {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	o, err := s.load.Record.Settled(ctx, since, calm)
	if errors.Is(err, context.DeadlineExceeded) {
		s.t.Fatalf("the client was not served well again within %v: %d of %d requests failed (%v)", patience, o.Failed, o.Requests, o.Errors)
	}
	s.must(err)
	return o
}

// whole waits until all nodes are back and could take the address over. Before that, the next failure would be the second at a time,
// and three nodes bear one.
func (s *stage) whole() *api.Status {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	st, err := s.fleet.WaitWhole(ctx)
	s.must(err)
	return st
}

// back waits until all nodes are back.
func (s *stage) back() *api.Status {
	s.t.Helper()
	return s.wait("all nodes to be back", func(st *api.Status) bool { return fleet.Whole(st, len(s.fleet.Nodes())) })
}

func (s *stage) wait(what string, ok func(*api.Status) bool) *api.Status {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	st, err := s.fleet.WaitStatus(ctx, what, ok)
	s.must(err)
	return st
}

// restart starts a node whose agent has ended.
func (s *stage) restart(n *fleet.Node) {
	s.t.Helper()
	s.must(n.Start())
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.must(n.Ready(ctx))
}

// ended waits for the end of a node's agent. One that does not end is made to say where it hangs.
func (s *stage) ended(n *fleet.Node) {
	s.t.Helper()
	select {
	case <-n.Agent().Done():
	case <-time.After(patience):
		n.Agent().Signal(unix.SIGQUIT)
		<-n.Agent().Done()
		s.t.Fatalf("the agent of %s has not ended within %v; its goroutines are in its log (-lab.keep)", n.Name, patience)
	}
}
