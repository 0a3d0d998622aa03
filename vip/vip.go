// Package vip holds addresses: it says which node may answer for a virtual IP, and makes the kernel do it.
//
// It has two halves in two processes. The guard (RunGuard) is tiny, punctual and decides nothing but whether it may still hold
// what was placed on it; the Agent is the node's handle on its guard. Between the guards run authenticated heartbeats; a lease,
// made of grants by a majority of voters, is what an address hangs on. vip knows no Raft and no configuration language: it is
// told placements. The one rule: nothing that claims, refreshes or announces an address runs without a look at the lease first.
//
// DESIGN.md holds the arithmetic and the table of failures.
package vip

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Bounds. What exceeds one is refused by Setup.Check, so that every table and every packet has a largest size.
const (
	MaxPeers     = 32
	MaxVIPs      = 64
	MaxAddresses = 256 // of all VIPs together
	MaxKeys      = 4
	MaxLinks     = 3 // ways for heartbeats from one node to another
)

// Epoch orders placements: a later one has the higher epoch. The zero Epoch is older than every placement.
type Epoch struct {
	Generation uint64 // raised by an operator's recover
	Index      uint64 // log index of the placement
}

// Compare orders epochs by generation, then by index.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Generation, o.Generation), cmp.Compare(e.Index, o.Index))
}

func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e.Generation, e.Index) }

// Setup is everything that a guard is told, complete each time: a Setup replaces the one before.
type Setup struct {
	Self      string         // this node's name
	ClusterID string         // bound into every heartbeat: guards of two clusters do not hear one another
	Keys      [][]byte       // heartbeat keys, newest first: the first signs, all are accepted
	Listen    netip.AddrPort // UDP address for heartbeats; the peers' Addr of this node

	// Also are addresses for heartbeats on further links, in the order of the peers' Also of this node. The same heartbeats go over
	// every link that both ends have: a node is heard while one of them works.
	Also []netip.AddrPort

	Peers       []Peer // all other nodes
	SelfVoter   bool
	Witness     bool   // grants, never holds
	VotersIndex uint64 // log index of the set of voters given here

	VIPs       []VIP
	Placements []Placement
	Applied    uint64 // newest log index that the agent has applied

	Pair *Pair `json:",omitempty"` // nil: a majority of voters decides. It takes one peer, and no witness

	Generation uint64   `json:",omitempty"` // of the cluster: raised when it is recovered without a majority
	Former     []Former `json:",omitempty"` // nodes that it was recovered without, see notice.go
}

// Peer is another node.
type Peer struct {
	Name    string
	Addr    netip.AddrPort   // where its guard listens
	Also    []netip.AddrPort // and on further links
	Voter   bool
	Witness bool
}

// VIP is a virtual address, or several that move together, of either family. Each is installed as a /32 or /128; the prefix length
// given here only helps to find the interface.
type VIP struct {
	Name      string
	Addresses []netip.Prefix
	Interface string // empty: the one that has an address in the same subnet
	VRRP      *VRRP  `json:",omitempty"` // nil: in no group
	RouterID  uint8  // not 0: the addresses have VRRP's MAC of this virtual router, wherever they are held
}

// Placement is a committed decision: this node shall hold that VIP.
type Placement struct {
	VIP   string
	Node  string
	Epoch Epoch
	First bool // nobody has held the address before: probe in full (RFC 5227) before the claim

	// Drain is how long the holder before may serve what it had established; zero: the placement was not planned, and that one is
	// gone or has to let go at once.
	Drain time.Duration
}

// Parking is a VIP that this node does not answer for any more, while what it has established is still served here.
type Parking struct {
	Epoch   Epoch         // at which it was held last
	Planned bool          // by a move; else it lasts only as long as it takes to tell the clients
	For     time.Duration // so far
	Left    time.Duration // at most
}

// Check reports everything that is wrong with s.
func (s *Setup) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Self == "" {
		bad("the node has no name")
	}
	if len(s.Keys) == 0 || len(s.Keys) > MaxKeys {
		bad("%d heartbeat keys, want 1 to %d", len(s.Keys), MaxKeys)
	}
	for _, k := range s.Keys {
		if len(k) < 16 {
			bad("a heartbeat key of %d bytes, want 16 or more", len(k))
		}
	}
	if !beatable(s.Listen) {
		bad("heartbeat address %v: want an address and a port", s.Listen)
	}
	checkAlso := func(who string, also []netip.AddrPort) {
		if len(also) >= MaxLinks {
			bad("%s%d heartbeat addresses, want at most %d", who, 1+len(also), MaxLinks)
		}
		for _, a := range also {
			if !beatable(a) {
				bad("%sheartbeat address %v: want an address and a port", who, a)
			}
		}
	}
	checkAlso("", s.Also)
	if len(s.Peers) > MaxPeers {
		bad("%d peers, want at most %d", len(s.Peers), MaxPeers)
	}
	if len(s.VIPs) > MaxVIPs {
		bad("%d vips, want at most %d", len(s.VIPs), MaxVIPs)
	}
	nodes := map[nodeID]string{idOf(s.Self): s.Self}
	for _, p := range s.Peers {
		if old, ok := nodes[idOf(p.Name)]; ok {
			bad("node %q: same name or name hash as %q", p.Name, old)
		}
		nodes[idOf(p.Name)] = p.Name
		if !beatable(p.Addr) {
			bad("node %q: heartbeat address %v: want an address and a port", p.Name, p.Addr)
		}
		checkAlso(fmt.Sprintf("node %q: ", p.Name), p.Also)
	}
	vips := map[vipID]string{}
	owner := map[netip.Addr]string{}
	routers := map[uint8]string{}
	for _, v := range s.VIPs {
		if old, ok := vips[vipKey(v.Name)]; ok {
			bad("vip %q: same name or name hash as %q", v.Name, old)
		}
		vips[vipKey(v.Name)] = v.Name
		if len(v.Addresses) == 0 {
			bad("vip %q has no address", v.Name)
		}
		if old, ok := routers[v.RouterID]; ok && v.RouterID != 0 {
			bad("vip %q: router id %d belongs to vip %q", v.Name, v.RouterID, old)
		}
		routers[v.RouterID] = v.Name
		for _, a := range v.Addresses {
			if !a.IsValid() || a.Addr().Is4In6() || a.Addr().IsLinkLocalUnicast() && a.Addr().Is6() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
				bad("vip %q: address %v: want an IPv4 or IPv6 address that is not bound to a link", v.Name, a)
			} else if old, ok := owner[a.Addr()]; ok {
				bad("vip %q: address %v belongs to vip %q", v.Name, a.Addr(), old)
			}
			owner[a.Addr()] = v.Name
		}
		if v.VRRP != nil {
			if c := v.VRRP.config(v.Addresses); len(v.Addresses) > 0 {
				if err := c.Check(); err != nil {
					bad("vip %q: vrrp: %w", v.Name, err)
				}
			}
		}
	}
	if len(owner) > MaxAddresses {
		bad("%d addresses, want at most %d", len(owner), MaxAddresses)
	}
	if p := s.Pair; p != nil {
		if len(p.Tiebreak) > MaxTiebreak {
			bad("%d tie-break addresses, want at most %d", len(p.Tiebreak), MaxTiebreak)
		}
		for _, a := range p.Tiebreak {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
				bad("tie-break address %v: want an address of another host", a)
			}
		}
		if p.File == "" {
			bad("a pair needs a file for its generation")
		}
	}
	if len(s.Former) > MaxFormer {
		bad("%d former nodes, want at most %d", len(s.Former), MaxFormer)
	}
	for _, f := range s.Former {
		if f.Name == "" || !beatable(f.Addr) || len(f.Keys) == 0 {
			bad("former node %q: heartbeat address %v, %d keys: want a name, an address with a port, and a key", f.Name, f.Addr, len(f.Keys))
		}
		checkAlso(fmt.Sprintf("former node %q: ", f.Name), f.Also)
	}
	for _, p := range s.Placements {
		if _, ok := vips[vipKey(p.VIP)]; !ok {
			bad("placement of unknown vip %q", p.VIP)
		}
	}
	return errors.Join(errs...)
}

// beatable is whether heartbeats can go to a.
func beatable(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast() && a.Addr().Zone() == ""
}

// State is what the guard sees and does, as the agent last heard.
type State struct {
	Connected bool   // the agent talks to a guard; when false, the rest is the last that was heard
	Problem   string // why there is no guard, or why it took no Setup; empty when all is well
	Unknown   string // something that the agent says and the guard, of an older version, knows nothing of; empty: it knows all
	PID       int    // the guard's
	Version   string // of the program that the guard was started from; empty: it does not say

	Fit         bool   // what the guard believes of its own agent
	Unfit       string // why not, as it sees it
	Silent      bool   // just started: grants and claims nothing yet
	RealTime    bool   // runs in real time (SCHED_RR)
	Locked      bool   // memory locked
	Profile     string
	ProfileWhy  string        // why it is not the fastest one; empty when it is
	Lateness    time.Duration // worst wake-up of late
	Gate        string        // "nftables", or why there is none
	VotersIndex uint64        // of the newest Setup
	Confirmed   uint64        // the lowest VotersIndex among all guards that hold or claim: the set of voters that is in force everywhere
	Listen      string
	Links       []Link // for heartbeats, this node's ends

	Reads   Formats           // of heartbeats
	Dropped map[string]uint64 // heartbeats that were not taken, by reason

	Held       map[string]Holding   // by VIP
	Parked     map[string]Parking   // by VIP
	Interfaces map[string]Interface // by VIP: where it is held, or would be
	Peers      map[string]PeerState
	Conflicts  []Conflict
	Explain    map[string][]string // by VIP: why it is held here or not
	Routers    map[string]Router   // by VIP that is in a VRRP group
	Unable     map[string]string   // VIPs that this node cannot hold, whatever its agent says, and why
	Pair       *Standing           // nil: these are no pair
	Newest     map[string]Newest   // by VIP, in a pair
	Superseded *Superseded         // the cluster goes on without this node, which holds and grants nothing; nil: nobody says so
}

// Link is this node's end of a way for heartbeats.
type Link struct {
	Addr    string
	Problem string // why it does not work; empty when nothing is known against it
}

// PeerLink is a way for heartbeats as this guard sees it.
type PeerLink struct {
	Addr string        // the peer's end
	Up   bool          // something was heard over it within a second
	Age  time.Duration // since then; negative when there never was anything
	RTT  time.Duration // the least one of late; zero when not known
}

// Interface is one of this host.
type Interface struct {
	Name string
	MAC  string
}

// Holding is a VIP held by this node.
type Holding struct {
	Epoch     Epoch
	Since     time.Time
	LeaseLeft time.Duration
}

// PeerState is another node as this guard sees it.
type PeerState struct {
	Voter, Witness bool

	Alive         bool // heard from within its detection time; that it is not is our opinion alone
	Fit           bool // as it said last: its agent says so, and its guard agrees
	AgentAlive    bool // as it said last
	Silent        bool // its guard has just started and grants nothing yet
	Resigned      bool // its guard has let go of everything: the node can be replaced at once
	ConfirmedDead bool // a majority of voters has not heard from it, or it said itself that it is gone

	Age         time.Duration // since the last heartbeat; negative when there never was one
	RTT         time.Duration // the least one of late; zero when not known
	Lateness    time.Duration // as told by the peer
	Profile     string
	MAC         string            // of its VIP interface
	Held        []string          // as it said last; empty once it is confirmed dead
	MACs        map[string]string // by VIP that it holds or has parked: of the interface there
	Parked      []string          // VIPs that it has moved away and still serves what it had of; empty when it has been dead for half a second
	Unable      []string          // VIPs that it cannot hold, as it said last
	Links       []PeerLink
	VotersIndex uint64
	Applied     uint64

	Reads         Formats // as it said last
	Format        int     // of its last heartbeat; zero when there never was one
	NotUnderstood string  // why it is not heard though it speaks: its guard and ours are too many versions apart; empty: nothing known
}

// Conflict is somebody who claims a VIP.
type Conflict struct {
	VIP      string
	Address  netip.Addr
	MAC      string
	Node     string // when the MAC is a peer's; empty for a stranger
	At       time.Time
	Count    int
	Stranger bool // not one of ours: an alarm
}

func (c Conflict) String() string {
	who := "a stranger"
	if !c.Stranger {
		who = c.Node
	}
	return strings.TrimSpace(fmt.Sprintf("%s (%v) is claimed by %s (%s)", c.VIP, c.Address, c.MAC, who))
}
