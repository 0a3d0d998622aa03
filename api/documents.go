package api

import "time"

// AsOf says how fresh an answer is, and through whose eyes it is seen. Reads work without a quorum: they are then as old as Index.
type AsOf struct {
	Node   string    `json:"node"` // who answered
	Index  uint64    `json:"index"`
	At     time.Time `json:"at"`
	Leader string    `json:"leader"` // "": none known
	Quorum bool      `json:"quorum"`
}

// Verdict is the cluster's state in one word.
type Verdict string

const (
	OK       Verdict = "ok"
	Degraded Verdict = "degraded" // traffic flows, something is missing
	Down     Verdict = "down"     // some traffic does not flow, or nothing can be changed
)

// Status is the document at /v1/status: the whole cluster on one page.
type Status struct {
	AsOf     AsOf            `json:"as_of"`
	Verdict  Verdict         `json:"verdict"`
	Reasons  []string        `json:"reasons"` // why it is not ok, most important first
	Cluster  ClusterStatus   `json:"cluster"`
	Revision Revision        `json:"revision"`
	Nodes    []NodeStatus    `json:"nodes"`
	VIPs     []VIPStatus     `json:"vips"`
	Backends []BackendStatus `json:"backends"`
	Alarms   []Alarm         `json:"alarms"`

	Certificates []CertificateStatus `json:"certificates"`
}

// ClusterStatus is what concerns the cluster as such.
type ClusterStatus struct {
	ID     string `json:"id"`
	Voters int    `json:"voters"`
	Alive  int    `json:"voters_alive"`
	Needed int    `json:"voters_needed"` // a majority
	Level  int    `json:"level"`         // of the commands that every node applies

	Pair *PairStatus `json:"pair,omitempty"` // two nodes that do without one
}

// Revision describes one configuration without its text. Number 0: none was ever applied.
type Revision struct {
	Number  uint64    `json:"number"`
	Message string    `json:"message,omitempty"`
	Author  string    `json:"author,omitempty"`
	At      time.Time `json:"at,omitzero"`
	Error   string    `json:"error,omitempty"` // why this version cannot read the text
}

// NodeStatus is one member, with its own report when it could be asked.
type NodeStatus struct {
	Name      string      `json:"name"`
	Address   string      `json:"address"`
	Role      string      `json:"role"`
	Leader    bool        `json:"leader"`
	Voter     bool        `json:"voter"`
	Alive     bool        `json:"alive"`             // heard by gossip
	Reachable bool        `json:"reachable"`         // its API answered in time
	Error     string      `json:"error,omitempty"`   // why it did not
	Holds     []string    `json:"holds"`             // VIPs
	Drained   *Drained    `json:"drained,omitempty"` // nil: it is in service
	Report    *NodeReport `json:"report,omitempty"`  // nil when not reachable
	Summary   string      `json:"summary,omitempty"` // in words, when there is something to say
}

// Drained says that an operator has taken a node out of service.
type Drained struct {
	By           string    `json:"by"`
	At           time.Time `json:"at"`
	DrainSeconds float64   `json:"drain_seconds"` // how long what it serves may take
}

// Draining is a node that still serves connections to an address that has moved away.
type Draining struct {
	Node        string `json:"node"`
	Connections *int   `json:"connections,omitempty"` // nil: it cannot count them
	ForMs       int64  `json:"for_ms"`
	LeftMs      int64  `json:"left_ms"` // at most
}

// VIPStatus is where a virtual address should be and where it is.
type VIPStatus struct {
	Name      string    `json:"name"`
	Addresses []string  `json:"addresses"`
	Prefer    []string  `json:"prefer,omitempty"`
	Failback  float64   `json:"failback_seconds,omitempty"` // 0: never
	Asked     bool      `json:"asked,omitempty"`            // an operator has put it where it is: Failback does not undo that
	Group     string    `json:"group,omitempty"`
	MinUsable int       `json:"minimum_servers,omitempty"`
	RouterID  int       `json:"virtual_mac,omitempty"`
	Placed    string    `json:"placed"` // the node that the cluster chose; "": none yet
	Epoch     string    `json:"epoch,omitempty"`
	Holder    string    `json:"holder"` // the node that says that it holds it; "": none, or it could not be asked
	Since     time.Time `json:"since,omitzero"`
	Interface string    `json:"interface,omitempty"`
	Frontends []string  `json:"frontends"`

	VRRP     *VRRP      `json:"vrrp,omitempty"`     // the holder's standing in its group; nil: it is in none
	Returns  *Return    `json:"returns,omitempty"`  // where Failback will move it, and when; nil: it stays
	Draining []Draining `json:"draining,omitempty"` // nodes that held it before and serve what they had
}

// BackendStatus is a backend with its servers.
type BackendStatus struct {
	Name    string         `json:"name"`
	Balance string         `json:"balance"`
	Sticky  string         `json:"sticky,omitempty"` // "cookie NAME" or "table KEY"
	Check   string         `json:"check,omitempty"`  // "http /healthz every 2s"; "": not checked
	Usable  int            `json:"usable"`           // servers that every reporting node may use
	Panic   []string       `json:"panic,omitempty"`  // nodes on which too few servers are well, so that health is ignored
	Servers []ServerStatus `json:"servers"`
	UsedBy  []string       `json:"used_by"` // frontends
}

// ServerState is a server's state in one word, over all nodes that report.
type ServerState string

const (
	ServerUp        ServerState = "up"
	ServerPartly    ServerState = "partly"    // some nodes reach it, others do not
	ServerDown      ServerState = "down"      // no reporting node reaches it
	ServerUnchecked ServerState = "unchecked" // nothing probes it: believed up
	ServerUnknown   ServerState = "unknown"   // no node reported on it
	ServerDrain     ServerState = "drain"     // an operator's word outranks health
	ServerDisabled  ServerState = "disabled"
)

// ServerStatus is one backend server: what is wanted, what was set at run time, what each node sees.
type ServerStatus struct {
	Backend        string      `json:"backend"`
	Name           string      `json:"name"`
	Address        string      `json:"address"`
	State          ServerState `json:"state"`
	Weight         int         `json:"weight"`      // in force
	FileWeight     int         `json:"file_weight"` // what the configuration says
	WeightSet      bool        `json:"weight_set"`  // a weight set at run time outranks the file's
	Backup         bool        `json:"backup"`
	MaxConnections int         `json:"max_connections,omitempty"`
	Admin          string      `json:"admin"` // "enabled", "drain", "disabled"
	AdminBy        string      `json:"admin_by,omitempty"`
	AdminAt        time.Time   `json:"admin_at,omitzero"`
	Seen           []Seen      `json:"seen"` // one per reporting node
	Active         int64       `json:"active"`
	Requests       uint64      `json:"requests"`
	Failures       uint64      `json:"failures"`
	Pace           Pace        `json:"pace"` // of all nodes
}

// Seen is one node's opinion of one server.
type Seen struct {
	Node  string    `json:"node"`
	Up    bool      `json:"up"`
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since,omitzero"`

	EjectedUntil time.Time `json:"ejected_until,omitzero"` // traffic found it failing
	RampPercent  int       `json:"ramp_percent,omitempty"` // of its weight, in a slow start; 0: there is none
}

// VIPList, BackendList, ServerList and NodeList are the documents of the lists, each with how fresh it is.
type (
	VIPList struct {
		AsOf AsOf        `json:"as_of"`
		VIPs []VIPStatus `json:"vips"`
	}
	BackendList struct {
		AsOf     AsOf            `json:"as_of"`
		Backends []BackendStatus `json:"backends"`
	}
	ServerList struct {
		AsOf    AsOf           `json:"as_of"`
		Servers []ServerStatus `json:"servers"`
	}
	NodeList struct {
		AsOf  AsOf         `json:"as_of"`
		Nodes []NodeStatus `json:"nodes"`
	}
)

// Explanation is the document at /v1/vips/{name}/explain: why each node holds the VIP or does not.
type Explanation struct {
	AsOf  AsOf              `json:"as_of"`
	VIP   VIPStatus         `json:"vip"`
	Next  string            `json:"next,omitempty"` // the node that would take it if its holder had to let go; empty: none could
	Nodes []NodeExplanation `json:"nodes"`
}

// NodeExplanation is one node's answer, line by line.
type NodeExplanation struct {
	Node  string   `json:"node"`
	Lines []string `json:"lines"`
	Error string   `json:"error,omitempty"` // why it could not be asked
}

// ConfigDocument is the stored configuration, byte for byte.
type ConfigDocument struct {
	AsOf     AsOf     `json:"as_of"`
	Revision Revision `json:"revision"`
	Text     string   `json:"text"`
}

// ApplyRequest is a new configuration and the revision that it was made from. BasedOn is a pointer so that leaving it out is an
// error rather than "on nothing".
type ApplyRequest struct {
	File    string  `json:"file"` // for messages only
	Text    string  `json:"text"`
	BasedOn *uint64 `json:"based_on"`
	Message string  `json:"message,omitempty"`
}

// ApplyEvent is one line of the answer to an apply: first the commit, then each node as it reports, then Done. Exactly one field
// is set.
type ApplyEvent struct {
	Committed *Committed   `json:"committed,omitempty"`
	Node      *NodeApplied `json:"node,omitempty"`
	Done      *ApplyDone   `json:"done,omitempty"`
}

// Committed is the new revision, and what went with the old one.
type Committed struct {
	Revision
	Notes string `json:"notes,omitempty"` // "forgot what was set on server shop/s2, which is gone"
}

// NodeApplied says whether one node runs the new revision.
type NodeApplied struct {
	Node    string `json:"node"`
	Running uint64 `json:"running"`
	OK      bool   `json:"ok"`
	Error   string `json:"error,omitempty"` // why not
	TookMs  int64  `json:"took_ms"`         // since the commit
}

// ApplyDone counts the outcome.
type ApplyDone struct {
	Revision uint64 `json:"revision"`
	Applied  int    `json:"applied"`
	Nodes    int    `json:"nodes"`
}

// PlanRequest asks what a text would change.
type PlanRequest struct {
	File string `json:"file"`
	Text string `json:"text"`
}

// Plan is the difference between the stored configuration and a text.
type Plan struct {
	AsOf     AsOf         `json:"as_of,omitzero"` // zero when two files were compared
	BasedOn  uint64       `json:"based_on"`       // the revision to give to apply
	Changes  []Change     `json:"changes"`
	Warnings []Diagnostic `json:"warnings"`
	Notes    []string     `json:"notes,omitempty"` // what goes on to outrank the text
}

// Change is one line of a plan.
type Change struct {
	Kind   string `json:"kind"` // "add", "remove", "change"
	Object string `json:"object"`
	Detail string `json:"detail,omitempty"`
}

// ServerRequest changes what an operator wants of a server. Nil fields stay as they are. Weight -1 gives the word back to the file.
type ServerRequest struct {
	State  *string `json:"state,omitempty"` // "enabled", "drain", "disabled"
	Weight *int    `json:"weight,omitempty"`
}

// TokenRequest asks for a secret with which a new host may join. A zero Expires is one hour; Uses 0 is one.
type TokenRequest struct {
	Role           string `json:"role"` // "balancer" or "witness"
	ExpiresSeconds int64  `json:"expires_seconds,omitempty"`
	Uses           int    `json:"uses,omitempty"`
}

// Token is the answer: the only time that the secret is shown.
type Token struct {
	ID        string    `json:"id"`
	Token     string    `json:"token"`
	Role      string    `json:"role"`
	Uses      int       `json:"uses"`
	ExpiresAt time.Time `json:"expires_at"`
	Address   string    `json:"address"` // where to join
}

// Removed is the answer to the removal of a node.
type Removed struct {
	Node string `json:"node"`
}
