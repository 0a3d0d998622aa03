// Package node puts a node of skein together: it opens the packages that know nothing of one another and connects them, one small
// file per flow.
//
// It is the same for the program and for tests, and the only place that sees all of them. It decides nothing that another package
// could: a coupler takes the newest value here and tells it there. The one rule: traffic never waits for anything in this package.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/internal/metrics"
	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// SocketName is the admin API's unix socket, in the data directory.
const SocketName = "skein.sock"

// Guard is what a node asks of the process that holds its addresses. *vip.Agent is one.
type Guard interface {
	State() *watch.Value[vip.State]
	Update(vip.Setup) error
	SetFit(ok bool, why string)
	Drained(vip string, at vip.Epoch)
	Close() // releases everything
}

// Engine is what a node asks of its data plane. *engine.Engine is one.
type Engine interface {
	Run(context.Context) error
	Apply(*config.Config) error
	Check(*config.Config) error
	SetUsable(backend, server string, usable bool)
	SetAdmin(backend, server string, state plan.Admin, weight int)
	SetCertificates([]*engine.Certificate) error
	SetTicketKeys([]engine.TicketKey) error
	SetList(name string, entries []config.ListEntry)
	Stats() engine.Stats
	Leave([]netip.Addr)
	Drain(context.Context) error
}

// Options is what a node of a cluster needs. The edges are nil for a real node; simulations bring their own.
type Options struct {
	Config  *config.Node
	Version string
	Log     *slog.Logger

	// Program is the file that Upgrade starts, see ProgramPath; empty: this node cannot be upgraded in place.
	Program string
	// Inherited is what this process has from the one that it follows; nil: it follows none. Serving is called once it has taken over.
	Inherited *Inheritance
	Serving   func()

	// GuardWait is how long a guard that somebody else starts is waited for before this node starts one of its own.
	GuardWait time.Duration

	// Edges.
	Network cluster.Network             // nil: the host's
	Level   int                         // the newest level of commands that it applies; 0: state.Level
	Guard   Guard                       // nil: a guard process, found or started
	Engine  func(*state.Machine) Engine // nil: event loops on this host's cores
	Admin   net.Listener                // nil: the unix socket in the data directory
	Disk    func() error                // see cluster.Options
}

// Node is one running member of a cluster.
type Node struct {
	// Immutable.
	conf    *config.Node
	version string
	level   int
	log     *slog.Logger
	started time.Time

	machine   *state.Machine
	cluster   *cluster.Cluster
	guard     Guard
	hands     Handover // nil: a simulation, a witness, or the kernel cannot; see handing
	flows     Flows    // the same
	engine    Engine   // nil on a witness
	loops     int      // of the engine
	reopenLog func()   // nil on a witness
	pace      pacer
	summed    atomic.Pointer[summed] // of the last report
	checker   *healthcheck.Checker
	admin     net.Listener

	program   string        // see Options
	inherited *Inheritance  // the same
	serving   func()        // the same
	follow    chan struct{} // closed when the guard may be asked to serve this process; nil: it always could
	heirs     chan *heir    // a process that is ready to follow this one
	ending    chan struct{} // closed when this node ends, and nobody may follow it any more
	former    watch.Value[former]
	upgrading atomic.Bool
	onDisk    watch.Value[api.Program]

	noHanding string              // why hands or flows could not be opened
	uncounted bool                // flows could not
	addresses func() []netip.Addr // of the host; nil: it has none of its own

	telling   sync.Mutex // see tell
	running   watch.Value[api.Running]
	lacks     watch.Value[netip.Addr]           // the address by which others reach this node, while the host does not have it
	flapping  watch.Value[map[string]time.Time] // nodes that were lost too often of late, and until when
	returns   watch.Value[[]returning]          // what this node will move back, as long as it leads
	leaving   watch.Value[bool]                 // this node was asked to stop, and begins to
	farewell  watch.Value[bool]                 // its gossip says so
	draining  atomic.Bool                       // it has begun; for good
	judging   sync.Mutex                        // see tellFit
	drains    watch.Value[map[string]int]       // connections by VIP, of those that are held or parked; -1: not known
	own       watch.Value[[]flow]               // connections to VIPs that are older than a moment, sorted
	peerFlows peerFlows
	handing   watch.Value[string] // why established connections cannot be kept on a move; empty: they can

	certsMu sync.Mutex
	// certsMu guards the following.
	keys      keyring
	certsTold []state.Certificate // to the engine
	sealedOff []error             // why some of them are not usable
}

// Open opens the log of the cluster that this host belongs to, finds or starts the guard, and returns a node that does nothing
// yet. A host that belongs to no cluster gets cluster.ErrNoCluster.
func Open(o Options) (*Node, error) {
	n := &Node{
		conf: o.Config, version: o.Version, log: o.Log, started: time.Now(),
		program: o.Program, inherited: o.Inherited, serving: o.Serving, heirs: make(chan *heir), ending: make(chan struct{}),
		level:   cmp.Or(o.Level, state.Level),
		checker: healthcheck.New(o.Log.With("part", "check")),
	}
	n.machine = state.NewAt(n.level)
	if o.Network == nil {
		n.addresses = hostAddresses
	}
	var err error
	n.cluster, err = cluster.Open(cluster.Options{
		Dir: clusterDir(o.Config), Advertise: advertise(o.Config), Heartbeat: o.Config.Heartbeat, Role: roleOf(o.Config.Role), Machine: n.machine,
		Views: n.machine.Views(), Network: o.Network, Log: o.Log.With("part", "cluster"), Confirmed: n.confirmed, Grants: n.grants, Heard: n.heard, Behind: n.behind, Disk: o.Disk,
	})
	if err != nil {
		return nil, err
	}
	n.keys.seal = n.cluster.SealKey()
	if err := n.openEdges(o); err != nil {
		return nil, errors.Join(err, n.cluster.Close())
	}
	return n, nil
}

// openEdges takes the edges of o, or makes the real ones.
func (n *Node) openEdges(o Options) error {
	var progress []*atomic.Uint64
	var sockets []engine.Sockets
	n.loops = min(runtime.NumCPU(), plan.MaxLoops)
	n.guard, n.admin = o.Guard, o.Admin
	if i := n.inherited; i != nil {
		n.follow, sockets, n.loops = make(chan struct{}), i.sockets, i.take.Loops
		n.checker.Seed(i.verdicts())
	}
	if n.guard == nil {
		agent, err := vip.Start(vip.Options{Dir: o.Config.DataDir, Wait: o.GuardWait, When: n.follow, Log: o.Log.With("part", "vip")})
		if err != nil {
			return err
		}
		n.guard, progress = agent, agent.Progress(n.loops)
		if o.Config.Role != config.Witness {
			n.openHandover()
		}
	}
	switch {
	case o.Config.Role == config.Witness:
	case o.Engine != nil:
		n.engine = o.Engine(n.machine)
	default:
		e, err := engine.New(engine.Options{
			Loops: n.loops, Node: o.Config.Name, Sockets: sockets,
			Log: o.Log.With("part", "engine"), Sticky: n.machine.Tables(), Progress: progress, Failure: n.trafficFailed, FreeBind: true,
			MaxConnections: o.Config.MaxConnections,
		})
		if err != nil {
			n.guard.Close()
			return err
		}
		n.engine, n.reopenLog = e, e.ReopenLog
	}
	return nil
}

// openHandover opens what keeps connections on a move. A node works without it.
func (n *Node) openHandover() {
	hands, err := vip.OpenHandover()
	if err == nil {
		n.hands = hands
	}
	flows, ferr := vip.OpenFlows()
	if n.uncounted = ferr != nil; ferr == nil {
		n.flows = flows
	}
	if err := errors.Join(err, ferr); err != nil {
		n.noHanding = err.Error()
		n.handing.Set(n.noHanding)
		n.log.Error("established connections will not survive the move of an address", "why", err)
	}
}

// closeHandover gives back what openHandover has opened.
func (n *Node) closeHandover() {
	if n.hands != nil {
		n.hands.Close()
	}
	if n.flows != nil {
		n.flows.Close()
	}
	n.hands, n.flows = nil, nil
}

// Run is the node's life. It returns when ctx has ended and everything is released: first the addresses, then the connections
// (until drain has passed), then the log.
func (n *Node) Run(ctx context.Context, drain time.Duration) error {
	// The data plane and the log outlive ctx, because releasing and draining need them.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	serving, retired := context.WithCancel(context.WithoutCancel(ctx))
	defer retired()
	answering, hush := context.WithCancel(life)
	defer hush()
	var wg, plane, answers sync.WaitGroup
	failed := make(chan error, 8)
	goes := func(name string, wg *sync.WaitGroup, ctx context.Context, f func(context.Context) error) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		}()
	}
	couples := func(f func(context.Context)) {
		wg.Add(1)
		go func() { defer wg.Done(); f(life) }()
	}

	if n.engine != nil {
		goes("engine", &plane, serving, n.engine.Run)
		goes("health checks", &wg, life, n.checker.Run)
	}
	goes("cluster", &wg, life, n.cluster.Run)
	stop := ctx.Done()
	if n.inherited != nil {
		goes("succession", &wg, life, n.coupleSuccession)
		asked := make(chan struct{})
		stop = asked
		couples(func(life context.Context) { defer close(asked); n.untilStop(ctx, life) })
	}
	couples(n.coupleGuard)
	couples(n.coupleFitness)
	if n.addresses != nil {
		couples(n.coupleAddress)
	}
	couples(n.coupleConfig)
	couples(n.coupleVerdicts)
	couples(n.coupleAdmin)
	couples(n.coupleLists)
	couples(n.coupleGossip)
	couples(n.coupleLevel)
	couples(n.coupleSeed)
	couples(n.couplePlacement)
	couples(n.couplePair)
	couples(n.coupleSuperseded)
	couples(n.coupleDrain)
	couples(n.coupleTellFlows)
	couples(n.coupleWake)
	couples(n.coupleLeadership)
	couples(n.coupleElection)
	couples(n.coupleSticky)
	couples(n.coupleTime)
	couples(n.coupleCertificates)
	couples(n.coupleTickets)
	couples(n.turnTickets)
	if n.engine != nil {
		couples(func(ctx context.Context) { n.pace.run(ctx, n.engine.Stats) })
	}
	n.onDisk.Set(api.Program{Path: n.program, Version: n.version, Level: n.level, Failed: failedUpgradeOf(n.inherited)})
	if n.program != "" {
		couples(n.coupleProgram)
	}
	goes("admin API", &answers, answering, n.serveAPI)
	goes("connections of others", &wg, life, n.hearFlows)
	if at := n.conf.Metrics; at.IsValid() {
		from := metrics.Sources{Version: n.version, Node: n.report, Certificates: func() []api.CertificateStatus {
			return api.Certificates(n.machine.Views().Get(), time.Now())
		}}
		if n.engine != nil {
			from.Engine = n.engine.Stats
		}
		couples(func(ctx context.Context) { metrics.Run(ctx, at.String(), from, n.log.With("part", "metrics")) })
	}
	n.log.Info("node runs", "name", n.conf.Name, "role", n.conf.Role.String(), "version", n.version)

	var err error
	select {
	case <-stop:
		close(n.ending)
		n.leave(drain)
	case err = <-failed:
		close(n.ending)
		n.log.Error("node ends", "why", err)
	case h := <-n.heirs:
		hush()
		answers.Wait() // who has asked for this hears that it is done
		if h, err = n.handOn(context.WithoutCancel(ctx), h, func() { end(); wg.Wait() }); err == nil {
			stopped := func() {}
			if ctx.Err() != nil {
				stopped = n.stopHeir(h, drain)
			}
			n.retire(ctx, h, drain)
			stopped()
		} else {
			n.log.Error("nobody follows; the node ends", "why", err)
			n.abandon(drain)
		}
	}
	end()
	answers.Wait()
	wg.Wait()
	retired()
	plane.Wait()
	n.closeHandover()
	n.guard.Close() // after the loops: they stamp their progress in memory that it gives back
	return errors.Join(err, n.cluster.Close())
}

// ReopenLog has the access log's file be opened anew, after it was moved away.
func (n *Node) ReopenLog() {
	if n.reopenLog != nil {
		n.reopenLog()
	}
}

// Snapshot writes the replicated state beside the log now. It happens by itself when it is due; this is for whoever wants to choose
// the moment.
func (n *Node) Snapshot() error { return n.cluster.Snapshot() }

// serveAPI serves the admin API on the unix socket and on the cluster's port until ctx ends.
func (n *Node) serveAPI(ctx context.Context) error {
	local := n.admin
	if local == nil {
		var err error
		if local, err = api.Listen(filepath.Join(n.conf.DataDir, SocketName)); err != nil {
			return err
		}
	}
	server := api.New(api.Options{
		Self: n.conf.Name, Views: n.machine.Views(), Running: &n.running, Report: n.report, Check: n.check, Explain: n.explain,
		Seal:     n.cluster.SealKey().Seal,
		Proposer: proposer{n.cluster}, Peers: peers{n}, Operations: operations{n}, Log: n.log.With("part", "api"),
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	for _, l := range []net.Listener{local, n.cluster.APIListener()} {
		go func() { ended <- server.Serve(ctx, l); cancel() }()
	}
	return errors.Join(<-ended, <-ended)
}
