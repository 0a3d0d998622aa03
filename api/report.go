package api

import (
	"cmp"
	"slices"
	"time"
)

// NodeReport is what one node observes of itself and around itself, and the document at /v1/node. It is made of facts only: what
// they mean for the cluster is decided by Summarize, on the node that was asked.
type NodeReport struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Role      string    `json:"role"` // "balancer" or "witness"
	At        time.Time `json:"at"`
	StartedAt time.Time `json:"started_at"`
	PID       int       `json:"pid"` // of the agent
	Program   Program   `json:"program"`
	Level     int       `json:"level,omitempty"`    // the newest level of commands that the version applies; 0: it knows of none
	Outdated  string    `json:"outdated,omitempty"` // why the version can't apply the log any more

	Revision  RevisionReport   `json:"revision"`
	Raft      RaftReport       `json:"raft"`
	State     *StateReport     `json:"state,omitempty"` // nil: there is none yet, or the version knows of none
	Disk      DiskReport       `json:"disk"`
	Guard     GuardReport      `json:"guard"`
	VIPs      []HeldVIP        `json:"vips"`
	Parked    []ParkedVIP      `json:"parked,omitempty"`
	Short     []string         `json:"short,omitempty"`    // VIPs behind which it sees fewer healthy servers than their minimum_servers
	Flapping  []string         `json:"flapping,omitempty"` // nodes that were lost too often of late, by its count
	Returns   []Return         `json:"returns,omitempty"`  // VIPs that it will move back, as the leader
	Peers     []PeerReport     `json:"peers"`
	Servers   []ServerReport   `json:"servers"`
	Backends  []BackendReport  `json:"backends"`
	Frontends []FrontendReport `json:"frontends"`
	Tables    []TableReport    `json:"tables"`
	Alarms    []Alarm          `json:"alarms"` // disk, refused revision and guard among them: the node knows best what to do
}

// RevisionReport compares the configuration that a node's engine runs with the newest one that its log holds.
type RevisionReport struct {
	Committed uint64 `json:"committed"`       // 0: none yet
	Running   uint64 `json:"running"`         // 0: none yet
	Error     string `json:"error,omitempty"` // why Running < Committed, once the engine has refused it
}

// RaftReport is a node's place in the replicated log.
type RaftReport struct {
	State         string   `json:"state"`  // "leader", "follower", "candidate", "stopped"
	Leader        string   `json:"leader"` // "": none known
	Quorum        bool     `json:"quorum"` // a leader is known and was heard of within its lease
	Term          uint64   `json:"term"`
	Voter         bool     `json:"voter"`
	Voters        []string `json:"voters"`
	NonVoters     []string `json:"non_voters,omitempty"`
	LastIndex     uint64   `json:"last_index"`
	CommitIndex   uint64   `json:"commit_index"`
	AppliedIndex  uint64   `json:"applied_index"`
	SnapshotIndex uint64   `json:"snapshot_index"`
	LastContactMs int64    `json:"last_contact_ms"` // since the leader was last heard; 0 on the leader
}

// StateReport is a checksum of a node's copy of what the cluster has agreed on, sticky tables apart, and for which part of the log it is
// that. Copies of one index with different sums have gone apart.
type StateReport struct {
	From uint64 `json:"from"` // the index of the command that made it
	To   uint64 `json:"to"`   // of the newest that was applied
	Sum  uint32 `json:"sum"`
}

// At reports whether it is the state at that index.
func (s *StateReport) At(index uint64) bool { return s.From <= index && index <= s.To }

// DiskReport is the state of the disk that holds the log. A disk that failed once is never trusted again until a restart.
type DiskReport struct {
	OK      bool    `json:"ok"`
	Error   string  `json:"error,omitempty"`
	FsyncMs float64 `json:"fsync_ms"` // of recent writes, the slowest
}

// GuardReport is the state of the guard process of a node.
type GuardReport struct {
	Running    bool    `json:"running"`
	Version    string  `json:"version,omitempty"`        // of the program that it was started from, which an upgrade of the agent leaves as it is
	Profile    string  `json:"profile,omitempty"`        // heartbeat profile, "20ms x 3"
	ProfileWhy string  `json:"profile_reason,omitempty"` // why it is not the fastest one
	RealTime   bool    `json:"real_time"`
	Gate       string  `json:"gate,omitempty"` // what stops ARP answers in the last millisecond: "nftables" or "valid_lft"
	LatenessMs float64 `json:"lateness_ms"`
	Fit        bool    `json:"fit"`
	FitReason  string  `json:"fit_reason,omitempty"` // why it is not fit

	Pair    *PairReport       `json:"pair,omitempty"`    // of two nodes without a third voter
	Unable  []UnableVIP       `json:"unable,omitempty"`  // what it could not hold, however fit it is
	Dropped map[string]uint64 `json:"dropped,omitempty"` // heartbeats that were not taken, by reason
}

// UnableVIP is a virtual address that a node cannot hold.
type UnableVIP struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// HeldVIP is a virtual address that this node holds now.
type HeldVIP struct {
	Name        string    `json:"name"`
	Addresses   []string  `json:"addresses"`
	Interface   string    `json:"interface,omitempty"`
	Epoch       string    `json:"epoch"` // "generation.index"
	Since       time.Time `json:"since"`
	LeaseLeftMs int64     `json:"lease_left_ms"`
	VRRP        *VRRP     `json:"vrrp,omitempty"` // nil: it is in no group, and the addresses are on the link
}

// VRRP is the standing of a VIP's holder in the VRRP group that the VIP is in. Only an active router has the addresses.
type VRRP struct {
	RouterID uint8  `json:"router_id"`
	State    string `json:"state"`            // "active", "backup", or "initialize": it takes no part
	Active   string `json:"active,omitempty"` // the address of the active router, when it is another one
	Why      string `json:"why,omitempty"`    // it takes no part
}

// Standby reports whether the holder has to wait for the addresses: another router of the group is active, or may be.
func (v *VRRP) Standby() bool { return v != nil && v.State != "active" }

// ParkedVIP is a virtual address that has moved away from this node, which still serves the connections it had.
type ParkedVIP struct {
	Name        string `json:"name"`
	Epoch       string `json:"epoch"` // at which it was held here
	Planned     bool   `json:"planned"`
	Connections *int   `json:"connections,omitempty"` // nil: it cannot count them
	ForMs       int64  `json:"for_ms"`
	LeftMs      int64  `json:"left_ms"` // at most; then what is left is reset
}

// Return is a VIP that goes back to a node that it prefers, unless something changes before.
type Return struct {
	VIP  string `json:"vip"`
	Node string `json:"node"`
	InMs int64  `json:"in_ms"`
}

// PeerReport is another node as this node's guard sees it.
type PeerReport struct {
	Name  string `json:"name"`
	Alive bool   `json:"alive"` // its guard is heard
	Fit   bool   `json:"fit"`   // its agent can serve
	AgeMs int64  `json:"age_ms"`
	RTTUs int64  `json:"rtt_us"`

	// Over the one port, tried every 5 s: on it depend elections and whatever is agreed on. Nil: not tried yet, or one of the two has no vote.
	Reached    *bool  `json:"reached,omitempty"`
	ReachError string `json:"reach_error,omitempty"` // why not

	Connections int `json:"connections"` // that it has told of; they are woken when it dies

	Links []LinkReport `json:"links,omitempty"` // the ways for heartbeats, when there are several
}

// LinkReport is one way for heartbeats to a node.
type LinkReport struct {
	Address string `json:"address"` // the other end
	Up      bool   `json:"up"`      // something came over it within a second
	AgeMs   int64  `json:"age_ms"`  // since then; -1: nothing ever did
	RTTUs   int64  `json:"rtt_us"`
}

// ServerReport is a backend server as this node sees it. Checked is false where nothing probes it: Up is then an assumption.
type ServerReport struct {
	Backend   string    `json:"backend"`
	Server    string    `json:"server"`
	Checked   bool      `json:"checked"`
	Up        bool      `json:"up"`
	Since     time.Time `json:"since,omitzero"`
	Why       string    `json:"why,omitempty"` // the last result in words
	LatencyMs float64   `json:"latency_ms"`
	Active    int64     `json:"active"` // connections now
	Queued    int64     `json:"queued"` // requests that wait for max_connections
	Requests  uint64    `json:"requests"`
	Failures  uint64    `json:"failures"`
	Pace      Pace      `json:"pace"`

	EjectedUntil time.Time `json:"ejected_until,omitzero"` // by traffic
	Ejections    uint64    `json:"ejections"`              // since this node started
	RampPercent  int       `json:"ramp_percent,omitempty"` // of its weight, in a slow start; 0: there is none
}

// BackendReport is a backend as the engine of this node balances it, with what it counted since it started.
type BackendReport struct {
	Backend      string `json:"backend"`
	Usable       int    `json:"usable"` // servers that take new clients
	Panic        bool   `json:"panic"`  // fewer than minimum_healthy are well, and health is ignored
	Waiting      int64  `json:"waiting"`
	Pace         Pace   `json:"pace"`
	Panicked     uint64 `json:"panicked"`     // clients that were balanced while health was ignored
	Queued       uint64 `json:"queued"`       // clients that waited for a place
	Redispatched uint64 `json:"redispatched"` // clients whose own server had no place, and that went to another
	Repeated     uint64 `json:"repeated"`     // requests that were sent a second time
	OverBudget   uint64 `json:"over_budget"`  // requests that were not, because the budget was spent
	Ejected      uint64 `json:"ejected"`      // servers, by traffic
}

// FrontendReport is what the engine of this node counted for a frontend since it started.
type FrontendReport struct {
	Name        string            `json:"name"`
	Mode        string            `json:"mode"`
	Listeners   []string          `json:"listeners"`
	Active      int64             `json:"active"` // connections now
	Connections uint64            `json:"connections"`
	Requests    uint64            `json:"requests"`
	BytesIn     uint64            `json:"bytes_in"`
	BytesOut    uint64            `json:"bytes_out"`
	Handshakes  uint64            `json:"handshakes,omitempty"` // of TLS
	Resumed     uint64            `json:"resumed,omitempty"`    // of those, with an earlier session
	Errors      map[string]uint64 `json:"errors,omitempty"`     // by kind
	Pace        Pace              `json:"pace"`
}

// TableReport is a sticky table as this node holds it.
type TableReport struct {
	Backend string `json:"backend"`
	Entries uint64 `json:"entries"`
	Size    uint64 `json:"size"`
	Pending uint64 `json:"pending"` // learned, not yet committed
	Learned uint64 `json:"learned"`
	Dropped uint64 `json:"dropped"`
	Expired uint64 `json:"expired"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
}

// Severity ranks alarms. Its JSON form is the word.
type Severity string

const (
	// Warning is something that an operator should change, while traffic flows as configured.
	Warning Severity = "warning"
	// Critical is something that already costs traffic or redundancy.
	Critical Severity = "critical"
)

// Alarm is something that needs a human, with the next command to type.
type Alarm struct {
	Severity Severity `json:"severity"`
	Node     string   `json:"node,omitempty"` // who raised it; "" when it concerns the cluster
	What     string   `json:"what"`
	Hint     string   `json:"hint,omitempty"`
}

// whole returns r with lists in the place of nil and in order, so that its JSON has the same shape on every node.
func (r NodeReport) whole() NodeReport {
	r.VIPs = slices.Clone(r.VIPs)
	for i := range r.VIPs {
		list(&r.VIPs[i].Addresses)
	}
	slices.SortFunc(r.VIPs, func(a, b HeldVIP) int { return cmp.Compare(a.Name, b.Name) })
	r.Peers = slices.Clone(r.Peers)
	slices.SortFunc(r.Peers, func(a, b PeerReport) int { return cmp.Compare(a.Name, b.Name) })
	r.Parked = slices.Clone(r.Parked)
	slices.SortFunc(r.Parked, func(a, b ParkedVIP) int { return cmp.Compare(a.Name, b.Name) })
	list(&r.VIPs)
	list(&r.Peers)
	list(&r.Servers)
	list(&r.Backends)
	list(&r.Frontends)
	list(&r.Tables)
	list(&r.Alarms)
	list(&r.Raft.Voters)
	return r
}

func list[T any](l *[]T) {
	if *l == nil {
		*l = []T{}
	}
}
