// Package cluster makes hosts into one cluster: membership, a replicated log that drives a state machine, leadership, and the one
// TCP port on which nodes authenticate each other. It wraps raft, memberlist and bbolt and is the only package that knows them.
//
// It decides nothing about addresses, traffic or configuration. The one rule: what raft agreed on is wanted, what gossip says is
// only seen; nothing that gossip says ever changes a voter, a key or a command.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/cert"
)

// Machine is what the log drives; state.Machine is one. Apply, Snapshot and Restore are called by one goroutine, never at the same
// time; Snapshot must be quick, what it returns is persisted while Apply goes on.
type Machine interface {
	Apply(index uint64, cmd []byte) any // a []byte; or an error: it needs a newer version, and nothing may be applied any more
	Snapshot() (Snapshot, error)
	Restore(r io.Reader) error // state.ErrTooNew: as an error of Apply
}

// Snapshot is the machine's state at one index.
type Snapshot = interface {
	Persist(w io.Writer) error
	Release()
}

// Options say who a node is and what it is connected to.
type Options struct {
	Dir       string         // identity, log and snapshots; of this package alone
	Advertise netip.AddrPort // where the other nodes reach this one, TCP and UDP
	Listen    netip.AddrPort // zero: Advertise
	Heartbeat []netip.Addr   // what the state is to say of this node's further links; nothing here uses them
	Role      state.Role

	Machine Machine
	Views   *watch.Value[*state.View] // what the machine publishes
	Network Network                   // nil: Host
	Log     *slog.Logger

	// Confirmed says whether the holders' guards have confirmed the voters as of a log index. The next change of voters waits for it.
	// nil: always.
	Confirmed func(index uint64) bool
	// Grants says whether a node's guard would grant addresses now. A node becomes a voter only then: each voter raises the number of
	// grants that a holder needs. nil: always.
	Grants func(node string) bool
	// Heard says whether another node's agent is known to run, by better means than the one port. nil: always.
	Heard func(node string) bool
	// Behind says which member holds back the level of the cluster, and what to do about it, for whoever needs a higher one. nil: not
	// known.
	Behind func(level int) string
	// Disk is asked after every synced write whether it failed; simulations make it fail. nil: only the real disk can.
	Disk func() error
	// Now is the clock that certificates are checked against. nil: time.Now.
	Now func() time.Time
}

// Leadership is who leads, as this node knows.
type Leadership struct {
	Leader  string // "": nobody that this node knows of
	Self    bool
	Term    uint64
	Since   time.Time // when this node learned of it
	Barrier bool      // only with Self: everything that was committed before has been applied here
}

// Rival is a node that stands for election, in a term.
type Rival struct {
	Name   string
	Term   uint64
	At     time.Time // when it asked this node for its vote
	Behind bool      // it does not get it: this node's log is newer
}

// Member is a node of the cluster, as wanted (state) and as seen (gossip).
type Member struct {
	Name  string
	Addr  netip.AddrPort
	Role  state.Role
	Voter bool
	Alive bool   // as gossip sees it; for people and for choosing, never for deciding
	Meta  []byte // what the node tells of itself, see SetMeta
}

// Stats are figures for people.
type Stats struct {
	State         string // leader, follower, candidate, shutdown
	Term          uint64
	Commit        uint64
	Applied       uint64
	Last          uint64        // newest entry of the own log
	SnapshotIndex uint64        // of the newest snapshot
	LogBytes      uint64        // of entries that are kept
	LastContact   time.Duration // since this node heard the leader; 0 on the leader
	Write         WriteStats
	Voters        int
	Certificate   time.Time // when this node's certificate ends
}

// WriteStats are the times of the newest 128 synced writes, and the newest slow one, however long ago that was.
type WriteStats struct {
	P50, P99, Max time.Duration
	Slow          SlowWrite
}

// Cluster is one node's membership. All methods may be called from any goroutine after Open; what needs the log waits until Run has
// opened it.
type Cluster struct {
	// Immutable.
	opt   Options
	name  string
	dir   string
	log   *slog.Logger
	store *store
	snaps *raft.FileSnapshotStore
	disk  *disk
	mux   *mux
	api   *queue
	flows *queue
	joins chan struct{} // one for each newcomer that is being answered

	seal       cert.SealKey // nil: none
	identity   atomic.Pointer[identity]
	leadership watch.Value[Leadership]
	rival      watch.Value[Rival]
	members    watch.Value[[]Member]
	voterSet   watch.Value[VoterSet]
	outdated   watch.Value[error]
	reaches    watch.Value[map[string]Reach]
	meta       watch.Value[[]byte]
	links      links
	nudge      chan struct{} // something that members shows has changed
	stopping   chan struct{} // closed when Run begins to end
	started    chan struct{} // closed when raft runs

	// Set before started is closed.
	raft      *raft.Raft
	fsm       *fsm
	nudges    *nudges
	transport *transport

	returning  atomic.Bool                // see Return
	superseded atomic.Pointer[Superseded] // see Supersede; nil: no

	asked asked         // of raft, and not answered yet
	ended chan struct{} // closed when raft has shut down
	once  sync.Once
}

const (
	// A snapshot is due when this much was written since the last one, or by raft's own count of entries.
	snapshotBytes = 64 << 20
	// trailingBytes is how much of the log is kept behind a snapshot for those who were away for a moment.
	trailingBytes = 32 << 20
	trailingMax   = 4096
	trailingMin   = 64

	snapshotInterval  = 30 * time.Second
	snapshotThreshold = 16384
	// Calm timers: on a busy machine shorter ones elect without need (measured). The guards' detector makes elections start at once.
	raftTimeout = time.Second
)

// Open opens the directory of a member, verifies all of it and starts nothing. It returns ErrNoCluster on a host that is in no
// cluster, and an ErrCorrupt with the way out when files are damaged.
func Open(opt Options) (*Cluster, error) {
	if opt.Network == nil {
		opt.Network = Host{}
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Confirmed == nil {
		opt.Confirmed = func(uint64) bool { return true }
	}
	if opt.Grants == nil {
		opt.Grants = func(string) bool { return true }
	}
	if opt.Heard == nil {
		opt.Heard = func(string) bool { return true }
	}
	if opt.Behind == nil {
		opt.Behind = func(int) string { return "" }
	}
	if opt.Role == "" {
		opt.Role = state.Balancer
	}
	if !opt.Listen.IsValid() {
		opt.Listen = opt.Advertise
	}
	id, err := loadIdentity(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", opt.Dir, err)
	}
	seal, err := loadSealKey(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", opt.Dir, err)
	}
	log := opt.Log.With("node", id.name)
	d := &disk{}
	path := filepath.Join(opt.Dir, fileStore)
	var st *store
	err = checkDatabase(path)
	if err == nil {
		st, err = openStore(path, d)
	}
	switch {
	case errors.Is(err, errBusy), errors.Is(err, os.ErrPermission), errors.Is(err, errFormat):
		return nil, err // nothing is damaged
	case err != nil:
		return nil, corrupt(opt.Dir, id.name, err)
	}
	if opt.Disk != nil {
		st.commit = func(f func(*bolt.Tx) error) error { return errors.Join(st.db.Update(f), opt.Disk()) }
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(opt.Dir, 2, raftLog(log))
	if err != nil {
		st.close()
		return nil, fmt.Errorf("open %s: %w", filepath.Join(opt.Dir, snapDir), err)
	}
	newest, err := checkSnapshots(opt.Dir, snaps, st)
	if err != nil {
		st.close()
		return nil, corrupt(opt.Dir, id.name, err)
	}
	if st.last != 0 && st.last < newest {
		// A snapshot was installed and the crash came before the log behind it was cleared.
		if err := st.DeleteRange(st.first, st.last); err != nil {
			st.close()
			return nil, err
		}
	}
	c := &Cluster{
		opt: opt, name: id.name, dir: opt.Dir, log: log, store: st, snaps: snaps, disk: d, seal: seal,
		api:      newQueue(opt.Advertise),
		flows:    newQueue(opt.Advertise),
		joins:    make(chan struct{}, maxJoins),
		nudge:    make(chan struct{}, 1),
		stopping: make(chan struct{}),
		started:  make(chan struct{}),
		ended:    make(chan struct{}),
	}
	c.identity.Store(id)
	c.links.ctx, c.links.stop = context.WithCancel(context.Background())
	c.links.dial = func(ctx context.Context, node, alpn string) (net.Conn, error) { return c.dial(ctx, node, alpn) }
	c.mux = newMux(log, opt.Network, &c.identity, c.refused, opt.Now)
	return c, nil
}

// ID returns the cluster's.
func (c *Cluster) ID() string { return c.identity.Load().cluster }

// SealKey returns what the keys of certificates in the replicated state are encrypted with: every member has it in a file, and gives
// it to those that join. It is nil on a member of a cluster that has none.
func (c *Cluster) SealKey() cert.SealKey { return c.seal }

// Leadership tells who leads.
func (c *Cluster) Leadership() *watch.Value[Leadership] { return &c.leadership }

// Rival tells who has asked this node for its vote last.
func (c *Cluster) Rival() *watch.Value[Rival] { return &c.rival }

// Members tells who belongs to the cluster, by name.
func (c *Cluster) Members() *watch.Value[[]Member] { return &c.members }

// Disk tells how the disk is: nil, or the first failed write. It never gets well again before the next start.
func (c *Cluster) Disk() *watch.Value[error] { return &c.disk.state }

// SetMeta gives the others a small text about this node, at most 512 bytes, within a second or so.
func (c *Cluster) SetMeta(b []byte) error {
	if len(b) > maxMeta {
		return fmt.Errorf("node summary of %d bytes, at most %d are allowed", len(b), maxMeta)
	}
	c.meta.Set(append([]byte(nil), b...))
	return nil
}

// AppliedIndex returns the log index of the newest command that this node's machine has carried out.
func (c *Cluster) AppliedIndex() uint64 {
	select {
	case <-c.started:
		return c.fsm.applied.Load()
	default:
		return 0
	}
}

// APIListener accepts the connections of other nodes and of operators with a node's identity that speak ALPNAPI. They are
// *tls.Conn, handshake done and client certificate verified.
func (c *Cluster) APIListener() net.Listener { return c.api }

// PeerConn is a connection whose other end is known by its certificate.
type PeerConn struct {
	net.Conn
	Node string
}

// FlowListener accepts the connections of other nodes that speak ALPNFlows, each a *PeerConn. Whoever serves them closes it.
func (c *Cluster) FlowListener() net.Listener { return c.flows }

// Dial opens a connection to a member and speaks alpn on it.
func (c *Cluster) Dial(ctx context.Context, node, alpn string) (net.Conn, error) {
	return c.dial(ctx, node, alpn)
}

func (c *Cluster) dial(ctx context.Context, node, alpn string) (net.Conn, error) {
	addr, ok := c.addr(node)
	if !ok {
		return nil, fmt.Errorf("dial %s: %w", node, ErrUnknownNode)
	}
	conn, err := c.mux.dial(ctx, addr, node, alpn)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// ErrUnknownNode says that no member has that name.
var ErrUnknownNode = errors.New("no such node")

// addr finds a node's address: in the replicated state, or, before that has arrived, in raft's configuration.
func (c *Cluster) addr(node string) (netip.AddrPort, bool) {
	if n, ok := c.view().Node(node); ok {
		return n.Advertise, true
	}
	select {
	case <-c.started:
	default:
		return netip.AddrPort{}, false
	}
	for _, s := range c.raft.GetConfiguration().Configuration().Servers {
		if string(s.ID) == node {
			a, err := netip.ParseAddrPort(string(s.Address))
			return a, err == nil
		}
	}
	return netip.AddrPort{}, false
}

var emptyView state.View

func (c *Cluster) view() *state.View {
	if v := c.opt.Views.Get(); v != nil {
		return v
	}
	return &emptyView
}

func (c *Cluster) refused(fingerprint string) bool { return c.view().Refused(fingerprint) }

func (c *Cluster) closing() bool {
	select {
	case <-c.stopping:
		return true
	default:
		return false
	}
}

// Run takes part in the cluster until ctx ends or something fails that leaves no way to go on (a port that is taken). A failed disk
// is no such thing: the node stops acknowledging, says so on Disk, and goes on showing what it knows.
func (c *Cluster) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.Close()

	listener, err := c.opt.Network.Listen(c.opt.Listen)
	if err != nil {
		return fmt.Errorf("listen for the other nodes: %w", err)
	}
	packets, err := c.opt.Network.ListenPacket(c.opt.Listen)
	if err != nil {
		listener.Close()
		return fmt.Errorf("listen for the other nodes: %w", err)
	}
	streams := newGossipTransport(c, packets)
	raftQueue := newQueue(c.opt.Advertise)
	c.transport = newTransport(stream{raftQueue, func(ctx context.Context, node string) (net.Conn, error) {
		return c.dial(ctx, node, ALPNRaft)
	}, &wires{}}, c.disk, raftLog(c.log), c.noteRival)
	if err := c.startRaft(); err != nil {
		c.transport.Close()
		listener.Close()
		streams.Shutdown()
		return err
	}
	close(c.started)
	c.publishVoters()
	c.mux.handle(c, raftQueue, streams)

	var background sync.WaitGroup
	background.Go(func() { c.mux.serve(listener) })
	background.Go(func() { c.followLeader(ctx) })
	background.Go(func() { c.nudges.run(ctx) })
	background.Go(func() { c.followViews(ctx) })
	background.Go(func() { c.gossip(ctx, streams) })
	background.Go(func() { c.followVoters(ctx) })
	background.Go(func() { c.found(ctx) })
	background.Go(func() { c.renew(ctx) })
	background.Go(func() { c.watchDisk(ctx) })
	background.Go(func() { c.watchOutdated(ctx) })
	background.Go(func() { c.snapshots(ctx) })
	background.Go(func() { c.keepWarm(ctx) })
	c.standAlone()

	<-ctx.Done()
	c.handOver()
	close(c.stopping)
	cancel()
	if !c.asked.close(answerGrace) {
		c.log.Warn("raft leaves commands unanswered", "waited", answerGrace)
	}
	err = c.raft.Shutdown().Error()
	close(c.ended)
	c.transport.Close()
	c.links.close()
	c.api.Close()
	c.flows.Close()
	raftQueue.Close()
	listener.Close()
	c.mux.close()
	background.Wait()
	return err
}

// Return says that this node will be back at once, in another process: when Run ends, gossip is not told that the node leaves.
func (c *Cluster) Return() { c.returning.Store(true) }

// Close closes the files. Run does it at its end; it is for a Cluster that never ran.
func (c *Cluster) Close() error {
	var err error
	c.once.Do(func() { err = c.store.close() })
	return err
}

// startRaft opens the log: when it returns, the machine has seen the newest snapshot and all that is known to be committed.
func (c *Cluster) startRaft() error {
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(c.name)
	cfg.HeartbeatTimeout = raftTimeout
	cfg.ElectionTimeout = raftTimeout
	cfg.LeaderLeaseTimeout = 500 * time.Millisecond
	cfg.CommitTimeout = 50 * time.Millisecond // nudges tell sooner
	cfg.MaxAppendEntries = 256
	cfg.TrailingLogs = trailingMax
	cfg.SnapshotInterval = snapshotInterval
	cfg.SnapshotThreshold = snapshotThreshold
	cfg.NoSnapshotRestoreOnStart = true // fsm.replay did it, and more
	cfg.Logger = raftLog(c.log)
	cfg.NoLegacyTelemetry = true

	has, err := raft.HasExistingState(c.store, c.store, c.snaps)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	if _, err := readFound(c.dir); err == nil && !has {
		first := raft.Configuration{Servers: []raft.Server{{ID: cfg.LocalID, Address: raft.ServerAddress(c.opt.Advertise.String())}}}
		if err := raft.BootstrapCluster(cfg, c.store, c.store, c.snaps, c.transport, first); err != nil {
			return fmt.Errorf("found the cluster: %w", err)
		}
	}
	c.nudges = newNudges(c)
	c.fsm = &fsm{m: c.opt.Machine, store: c.store, snaps: c.snaps, dir: c.dir, hurry: c.stopping, committed: c.nudges.committed, voted: c.wake,
		outdated: &c.outdated}
	if err := c.fsm.replay(c.snaps); err != nil {
		return corrupt(c.dir, c.name, fmt.Errorf("replay the log: %w", err))
	}
	r, err := raft.NewRaft(cfg, c.fsm, c.store, c.store, c.snaps, c.transport)
	if err != nil {
		return fmt.Errorf("start from the log and its snapshots: %w", err)
	}
	c.raft = r
	c.transport.raft.Store(r)
	return nil
}
