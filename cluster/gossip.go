package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/skeinlb/skein/state"
)

// maxMeta is memberlist's bound on what a node says of itself.
const maxMeta = memberlist.MetaMaxSize

const (
	// gossipTick is how often what raft and memberlist know is looked at without being told that it changed.
	gossipTick = time.Second
	// gossipCall is how often nodes that are wanted but not seen are called.
	gossipCall = 5 * time.Second
	leaveTime  = 500 * time.Millisecond
)

// gossip runs memberlist once the log has brought its keys, keeps the keys and the members in step with the replicated state, and
// publishes who is seen.
func (c *Cluster) gossip(ctx context.Context, t *gossipTransport) {
	defer t.Shutdown()
	v, err := c.opt.Views.Wait(ctx, func(v *state.View) bool { return v != nil && len(v.Keys.Gossip) > 0 })
	if err != nil {
		return
	}
	ring, err := memberlist.NewKeyring(v.Keys.Gossip, v.Keys.Gossip[0])
	if err != nil {
		c.log.Error("gossip does not start: nobody sees whether this node is alive", "err", err)
		return
	}
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = c.name
	cfg.Label = c.ID()
	cfg.Transport = t
	cfg.AdvertiseAddr = c.opt.Advertise.Addr().String()
	cfg.AdvertisePort = int(c.opt.Advertise.Port())
	cfg.Keyring = ring
	cfg.EnableCompression = false
	cfg.TCPTimeout = rpcTimeout
	cfg.ProbeInterval = 500 * time.Millisecond
	cfg.ProbeTimeout = 250 * time.Millisecond
	cfg.SuspicionMult = 3
	cfg.PushPullInterval = 15 * time.Second
	cfg.DeadNodeReclaimTime = 3 * time.Second // a node that comes back with another address
	cfg.DNSConfigPath = ""
	cfg.Logger = log.New(lineWriter{c.log}, "", 0)
	d := &delegate{c: c, seen: map[string][]byte{}}
	cfg.Delegate, cfg.Events, cfg.Alive = d, d, d
	ml, err := memberlist.Create(cfg)
	if err != nil {
		c.log.Error("gossip does not start: nobody sees whether this node is alive", "err", err)
		return
	}
	defer ml.Shutdown()
	defer func() {
		if c.returning.Load() {
			return
		}
		if err := ml.Leave(leaveTime); err != nil {
			c.log.Debug("leave gossip", "err", err)
		}
	}()

	tick := time.NewTicker(gossipTick)
	defer tick.Stop()
	var called time.Time
	var calledFor *state.View
	told := c.meta.Get()
	tell := func(meta []byte, within time.Duration) {
		if bytes.Equal(meta, told) {
			return
		}
		if err := ml.UpdateNode(within); err != nil {
			c.log.Debug("tell the others about this node", "err", err)
		}
		told = meta
	}
	var calls sync.WaitGroup // calls to nodes that are not seen: one round at a time
	defer calls.Wait()
	calling := make(chan struct{}, 1)
	for {
		v, views := c.opt.Views.Watch()
		if err := rekey(ring, v.Keys.Gossip); err != nil {
			c.log.Warn("change the gossip keys", "err", err)
		}
		meta, metas := c.meta.Watch()
		tell(meta, time.Second)
		seen := d.table()
		c.publishMembers(v, seen)
		missing := unseen(v, c.name, seen)
		if len(missing) > 0 && (v != calledFor || time.Since(called) > gossipCall) {
			select {
			case calling <- struct{}{}:
				called, calledFor = time.Now(), v
				calls.Go(func() {
					defer func() { <-calling }()
					if _, err := ml.Join(missing); err != nil {
						c.log.Debug("gossip: call", "nodes", missing, "err", err)
					}
				})
			default:
			}
		}
		select {
		case <-views:
		case <-metas:
		case <-c.nudge:
		case <-tick.C:
		case <-ctx.Done():
			c.members.Set(nil)
			if !c.returning.Load() {
				tell(c.meta.Get(), leaveTime) // the last word: that it stops on purpose
			}
			return
		}
	}
}

// unseen returns the members that gossip does not see, as memberlist wants to call them.
func unseen(v *state.View, self string, seen map[string][]byte) []string {
	var missing []string
	for _, n := range v.Nodes {
		if _, ok := seen[n.Name]; !ok && n.Name != self {
			missing = append(missing, n.Name+"/"+n.Advertise.String())
		}
	}
	return missing
}

// rekey makes the ring hold exactly keys, newest first. For a moment nodes that are ahead cannot be read by those that are behind;
// gossip repeats itself.
func rekey(ring *memberlist.Keyring, keys [][]byte) error {
	if len(keys) == 0 || bytes.Equal(ring.GetPrimaryKey(), keys[0]) && len(ring.GetKeys()) == len(keys) {
		return nil
	}
	var err error
	for _, k := range keys {
		err = errors.Join(err, ring.AddKey(k))
	}
	err = errors.Join(err, ring.UseKey(keys[0]))
	for _, have := range ring.GetKeys() {
		kept := false
		for _, k := range keys {
			kept = kept || bytes.Equal(have, k)
		}
		if !kept {
			err = errors.Join(err, ring.RemoveKey(have))
		}
	}
	return err
}

// publishMembers puts together what is wanted (the view), who votes (raft) and who is seen (gossip).
func (c *Cluster) publishMembers(v *state.View, seen map[string][]byte) {
	c.publishVoters()
	ms := make([]Member, 0, len(v.Nodes))
	for _, n := range v.Nodes {
		m := Member{Name: n.Name, Addr: n.Advertise, Role: n.Role, Voter: c.voter(n.Name)}
		m.Meta, m.Alive = seen[n.Name]
		ms = append(ms, m)
	}
	old := c.members.Get()
	for _, m := range ms {
		if was := memberOf(old, m.Name); was.Alive != m.Alive && m.Name != c.name {
			c.log.Info("node seen", "peer", m.Name, "alive", m.Alive)
		}
	}
	if !slices.EqualFunc(old, ms, func(a, b Member) bool {
		return a.Name == b.Name && a.Addr == b.Addr && a.Role == b.Role && a.Voter == b.Voter && a.Alive == b.Alive && bytes.Equal(a.Meta, b.Meta)
	}) {
		c.members.Set(ms)
	}
}

func memberOf(ms []Member, name string) Member {
	for _, m := range ms {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

// wake makes the gossip loop publish again. It never blocks.
func (c *Cluster) wake() {
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

// delegate is what memberlist asks and tells. None of its methods may block: memberlist holds its locks meanwhile. It keeps its own
// table of who is alive, because the nodes that memberlist hands out go on changing.
type delegate struct {
	c *Cluster

	mu sync.Mutex
	// mu guards the following.
	seen map[string][]byte // what the nodes that are alive say of themselves
}

func (d *delegate) table() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.seen)
}

func (d *delegate) NotifyJoin(n *memberlist.Node) {
	meta := append([]byte(nil), n.Meta...)
	d.mu.Lock()
	d.seen[n.Name] = meta
	d.mu.Unlock()
	d.c.wake()
}

func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.NotifyJoin(n) }

func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	delete(d.seen, n.Name)
	d.mu.Unlock()
	d.c.wake()
}

func (d *delegate) NodeMeta(limit int) []byte {
	b := d.c.meta.Get()
	return b[:min(len(b), limit)]
}
func (d *delegate) NotifyMsg([]byte)                         {}
func (d *delegate) GetBroadcasts(overhead, max int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte                   { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)            {}

// NotifyAlive keeps nodes out of gossip that are no members.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if _, ok := d.c.view().Node(n.Name); !ok && n.Name != d.c.name {
		return fmt.Errorf("%s is no member", n.Name)
	}
	return nil
}

// gossipTransport carries memberlist: packets on the UDP port of the same number, streams over the one TCP port.
type gossipTransport struct {
	c       *Cluster
	conn    net.PacketConn
	packets chan *memberlist.Packet
	streams chan net.Conn
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

func newGossipTransport(c *Cluster, conn net.PacketConn) *gossipTransport {
	t := &gossipTransport{
		c: c, conn: conn,
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
		stop:    make(chan struct{}),
	}
	t.wg.Go(t.read)
	return t
}

// read passes packets on until the socket is closed. Before gossip has its keys nobody takes them, and they are dropped.
func (t *gossipTransport) read() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := t.conn.ReadFrom(buf)
		if err != nil {
			select {
			case <-t.stop:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier packet
		}
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packets <- p:
		case <-t.stop:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (t *gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	a := t.c.opt.Advertise
	return a.Addr().AsSlice(), int(a.Port()), nil
}

func (t *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (t *gossipTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout dials the node by its name, which memberlist knows of everybody it calls. A node that stops waits for none that is down.
func (t *gossipTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.c.links.ctx, timeout)
	defer cancel()
	return t.c.dial(ctx, a.Name, ALPNGossip)
}

func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams }

// put hands a stream to memberlist, if it runs.
func (t *gossipTransport) put(c net.Conn) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case t.streams <- c:
	case <-t.stop:
		c.Close()
	case <-timer.C:
		c.Close()
	}
}

func (t *gossipTransport) Shutdown() error {
	t.once.Do(func() {
		close(t.stop)
		t.conn.Close()
	})
	t.wg.Wait()
	return nil
}
