package state

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state/sticky"
)

// View is all that is wanted, as of one log index. It is immutable, and so is everything it refers to; any goroutine may keep it.
//
// Turned into JSON it shows no secret (keys, the CA's key, hashes of tokens), so that none is shown by accident.
type View struct {
	Index   uint64 // of the command that made it
	LogTime uint64 // milliseconds of leadership so far, see Tick; of this view, Machine.LogTime is newer

	Cluster  Cluster
	Revision ConfigRevision
	Scope    Scope // what the revision's text names, as its proposer read it

	// Config is Revision.Text as this version reads it: nil before the first apply. A text that this version cannot read leaves
	// the Config before it in place and says why in ConfigError.
	Config      *config.Config
	ConfigError error

	Nodes      []Node                 // by name
	Removed    map[string]string      // fingerprint of a certificate that is refused from now on -> the node's name
	Former     []Former               // nodes that the cluster was recovered without, the newest last
	Placements map[string]Placement   // by VIP
	Servers    map[ServerKey]Admin    // only what differs from Default
	Lists      map[string][]ListEntry // what was set on lists at run time, by network
	Drained    map[string]Drained     // nodes that an operator has taken out of service

	Keys   Keys
	CA     CA
	Tokens []Token // by ID

	Certificates []Certificate // by name
	Tickets      []TicketKey   // newest first
}

// Cluster is what a cluster is from its first command on. The zero Cluster: not founded yet.
type Cluster struct {
	ID         string
	Generation uint64    // raised by Recover, and by Adopt; from 1
	Founded    time.Time // by the founder's clock, for people only

	Level        int    `json:",omitempty"` // see View.Level; 0: 1
	LevelVersion string `json:",omitempty"` // which raised it, for people
}

// ConfigRevision is one applied configuration.
type ConfigRevision struct {
	Number  uint64 // from 1; 0: nothing was applied yet
	Index   uint64 // of the command
	Text    []byte // as the operator wrote it, byte for byte
	Message string
	Author  string
	At      time.Time // by the proposer's clock, for people only
}

// Scope is what the machine itself has to know of a configuration. The proposer takes it from the text, because replicas of
// different versions may read one text differently, and replicas must never differ.
type Scope struct {
	VIPs    []string
	Servers []ServerKey
	Tables  []sticky.Spec
	Lists   []string `json:",omitempty"`

	Certificates []string `json:",omitempty"` // that it names
}

// ScopeOf returns the scope of c, in a canonical order.
func ScopeOf(c *config.Config) Scope {
	var s Scope
	for _, v := range c.VIPs {
		s.VIPs = append(s.VIPs, v.Name)
	}
	for _, b := range c.Backends {
		for _, srv := range b.Servers {
			s.Servers = append(s.Servers, ServerKey{Backend: b.Name, Server: srv.Name})
		}
		if t := b.StickyTable; t != nil {
			s.Tables = append(s.Tables, sticky.Spec{ID: sticky.ID(b.Name), Name: b.Name, TTL: t.TTL, Size: t.Size})
		}
	}
	for _, use := range c.CertificateUses() {
		s.Certificates = append(s.Certificates, use.Certificate)
	}
	slices.Sort(s.Certificates)
	s.Certificates = slices.Compact(s.Certificates)
	for _, l := range c.Lists {
		s.Lists = append(s.Lists, l.Name)
	}
	slices.Sort(s.VIPs)
	slices.Sort(s.Lists)
	slices.SortFunc(s.Servers, ServerKey.Compare)
	slices.SortFunc(s.Tables, func(a, b sticky.Spec) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

// HasVIP reports whether the configuration names vip.
func (s *Scope) HasVIP(vip string) bool {
	_, ok := slices.BinarySearch(s.VIPs, vip)
	return ok
}

// HasServer reports whether the configuration names the server.
func (s *Scope) HasServer(k ServerKey) bool {
	_, ok := slices.BinarySearchFunc(s.Servers, k, ServerKey.Compare)
	return ok
}

// Role is what a node is for.
type Role string

const (
	Balancer Role = "balancer" // serves traffic and may hold addresses
	Witness  Role = "witness"  // votes and grants, never holds
)

// Node is a member of the cluster.
type Node struct {
	Name        string
	Advertise   netip.AddrPort
	Role        Role
	Fingerprint string   // of its certificate
	Former      []string `json:",omitempty"` // of certificates it had before, which fall with it
	JoinedIndex uint64

	Heartbeat []netip.Addr `json:",omitempty"` // where its guard is heard on further links
}

// Epoch orders the placements of one address: generation of the cluster first, then log index of the placement.
type Epoch struct{ Generation, Index uint64 }

// Pair reports whether the cluster is two balancers and nothing else, which have no majority without each other.
func (v *View) Pair() bool {
	return len(v.Nodes) == 2 && v.Nodes[0].Role == Balancer && v.Nodes[1].Role == Balancer
}

// Compare returns -1, 0 or +1 as e is older than, the same as or newer than o.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Generation, o.Generation), cmp.Compare(e.Index, o.Index))
}

// String returns "generation.index", as in "1.42".
func (e Epoch) String() string {
	return strconv.FormatUint(e.Generation, 10) + "." + strconv.FormatUint(e.Index, 10)
}

// Placement says which node is to hold a VIP.
type Placement struct {
	VIP   string
	Node  string
	Epoch Epoch
	First bool `json:",omitempty"` // nobody held the VIP before: the claim probes in full

	// Ring is who has held the VIP up to now, in the order in which each of them first did, Node included: each of them that still
	// serves what it had hands what is not its own to the one before it. A node that gets the VIP back keeps its place, so that
	// nothing has to change anywhere at that moment.
	Ring  []string      `json:",omitempty"`
	Drain time.Duration `json:",omitempty"` // of a Move: how long the node before may serve what it had
	Asked bool          `json:",omitempty"` // by an operator: failback does not undo it
}

// ServerKey names a server.
type ServerKey struct{ Backend, Server string }

// Compare orders by backend, then by server.
func (k ServerKey) Compare(o ServerKey) int {
	return cmp.Or(cmp.Compare(k.Backend, o.Backend), cmp.Compare(k.Server, o.Server))
}

// String returns "backend/server".
func (k ServerKey) String() string { return k.Backend + "/" + k.Server }

// AdminState is what an operator wants of a server. It outranks health.
type AdminState string

const (
	Enabled  AdminState = "enabled"
	Drain    AdminState = "drain"    // no new clients; those who are stuck to it stay
	Disabled AdminState = "disabled" // nobody
)

// Admin is what was set on a server at run time. It outranks the file until it is cleared.
type Admin struct {
	State  AdminState
	Weight int // -1: the file's
	By     string
	At     time.Time // by the proposer's clock, for people only
}

// Default is a server of which nothing was set.
var Default = Admin{State: Enabled, Weight: -1}

// Keys are the symmetric keys that nodes share, newest first. The newest is used to send; all are accepted.
type Keys struct {
	Gossip    [][]byte
	Heartbeat [][]byte
}

// CA is the cluster's own certificate authority.
type CA struct {
	CertPEM []byte
	KeyPEM  []byte
}

// Token lets hosts join.
type Token struct {
	ID         string
	SecretHash []byte `json:",omitempty"`
	Role       Role
	Expires    uint64   // log time, milliseconds
	Uses       int      // hosts that may join with it
	UsedBy     []string `json:",omitempty"` // who did: what UseToken.By said
}

// Left returns how many more hosts may join with t.
func (t *Token) Left() int { return t.Uses - len(t.UsedBy) }

// Node returns the node of that name.
func (v *View) Node(name string) (Node, bool) {
	if i, ok := v.node(name); ok {
		return v.Nodes[i], true
	}
	return Node{}, false
}

func (v *View) node(name string) (int, bool) {
	return slices.BinarySearchFunc(v.Nodes, name, func(n Node, name string) int { return cmp.Compare(n.Name, name) })
}

// Refused reports whether the certificate with that fingerprint belongs to a node that was removed.
func (v *View) Refused(fingerprint string) bool {
	_, ok := v.Removed[fingerprint]
	return ok
}

// Admin returns what was set on a server at run time, or Default.
func (v *View) Admin(backend, server string) Admin {
	if a, ok := v.Servers[ServerKey{backend, server}]; ok {
		return a
	}
	return Default
}

func (v *View) token(id string) (int, bool) {
	return slices.BinarySearchFunc(v.Tokens, id, func(t Token, id string) int { return cmp.Compare(t.ID, id) })
}

// Founded reports whether the cluster exists.
func (v *View) Founded() bool { return v.Cluster.ID != "" }

// SortedPlacements returns the placements by VIP.
func (v *View) SortedPlacements() []Placement {
	ps := make([]Placement, 0, len(v.Placements))
	for _, vip := range slices.Sorted(maps.Keys(v.Placements)) {
		ps = append(ps, v.Placements[vip])
	}
	return ps
}
