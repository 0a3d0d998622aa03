// Package config is what an operator writes: the types, the parser, the validator and the formatter of skein's two files.
//
// It knows no cluster, no socket and no clock: text in, values or diagnostics out. A *Config that Parse returned without an
// error is valid as a whole (every name resolves, every number is in its range), so that nobody after it checks again.
package config

import (
	"net/netip"
	"slices"
	"time"
)

// Config is one valid configuration of a cluster. It is immutable after Parse.
type Config struct {
	Text      []byte // the source, byte for byte
	VIPs      []*VIP
	Lists     []*List
	Limits    []*Limit
	Frontends []*Frontend
	Backends  []*Backend
	Log       *Log     // nil: no access log
	Pair      *Pairing // nil: two nodes are no pair
}

// Pos is a place in a source file. Line and Column count from 1; Column counts characters.
type Pos struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// VIP is one virtual address (or several that move together), held by one node at a time.
type VIP struct {
	Name      string
	Addresses []netip.Prefix // the subnet's length is used to find the interface; the address is installed as a host address
	Interface string         // "": the interface whose subnet contains the address
	RouterID  int            // of its virtual MAC; 0: it has that of whoever holds it
	Prefer    []string       // node names, best first; ranks only
	Failback  time.Duration  // go back to a node that Prefer ranks higher once it has been well for so long; 0: never
	Group     string         // VIPs of one group are held by one node; "": on its own

	// MinimumServers is how many healthy servers a node must see in every backend behind the VIP to be a good holder; 0: none.
	MinimumServers int
	VRRP           *VRRP // nil: in no VRRP group
	Pos            Pos
}

// VRRP is the VRRP group that the holder of a VIP takes part in, beside routers that are not skein.
type VRRP struct {
	RouterID uint8         // 1..255
	Version  uint8         // 2 or 3
	Priority uint8         // 1..254
	Interval time.Duration // between advertisements
	Preempt  bool          // take over from a router of lower priority
}

// Mode is what a listener speaks.
type Mode uint8

const (
	HTTP Mode = iota + 1
	TCP
)

func (m Mode) String() string {
	switch m {
	case HTTP:
		return "http"
	case TCP:
		return "tcp"
	}
	return "unknown"
}

// Frontend is a set of listeners and what is done with what arrives there. All its ports speak one Mode.
type Frontend struct {
	Name  string
	VIPs  []string // names; empty when Bind is set
	Bind  []netip.Addr
	Mode  Mode
	Ports []uint16 // http or tcp

	TLS *FrontendTLS // nil: none of its ports ends TLS

	Routes  []*Route // first match wins, in written order; HTTP only
	Backend string   // when no route matches; "": 404 (HTTP)

	RequestHeaders  HeaderEdits
	ResponseHeaders HeaderEdits
	Timeouts        FrontendTimeouts
	MinRate         MinRate // HTTP only
	NoLog           bool    // log = false: keeps its requests out of the access log
	Caps            Caps
	Limits          []string // names; all of them bound each client

	// Names of lists.
	Allow   []string // who else connects is refused; empty: nobody is
	Deny    []string // who connects from there is refused, whatever Allow says
	Trusted []string // proxies whose X-Forwarded-For is believed; HTTP only

	Pos Pos
}

// Listener is one address a frontend listens on.
type Listener struct {
	Addr netip.AddrPort
	Mode Mode
	TLS  bool // ends there; Mode is what is spoken inside
}

// Listeners returns f's listening addresses in written order: every VIP address or bind address times every port, those that end
// TLS after the others.
func (c *Config) Listeners(f *Frontend) []Listener {
	var addrs []netip.Addr
	for _, name := range f.VIPs {
		for _, v := range c.VIPs {
			if v.Name == name {
				for _, p := range v.Addresses {
					addrs = append(addrs, p.Addr())
				}
			}
		}
	}
	addrs = append(addrs, f.Bind...)
	var ls []Listener
	for _, a := range addrs {
		for _, p := range f.Ports {
			ls = append(ls, Listener{Addr: netip.AddrPortFrom(a, p), Mode: f.Mode})
		}
		if f.TLS != nil {
			for _, p := range f.TLS.Ports {
				ls = append(ls, Listener{Addr: netip.AddrPortFrom(a, p), Mode: f.Mode, TLS: true})
			}
		}
	}
	return ls
}

// FrontendTimeouts bound the client's side.
type FrontendTimeouts struct {
	Headers time.Duration // from the first byte of a request to the end of its head
	Client  time.Duration // no progress while a body or stream is under way
	Idle    time.Duration // between requests of a keep-alive connection

	Handshake time.Duration // of TLS, from accept to its end
}

// MinRate is how fast a client must send a body and take a response while nothing but the client is waited for.
type MinRate struct {
	Request  int // bytes per second; 0: any
	Response int
	Grace    time.Duration // before it is measured, and for how long at a time
}

// Caps bound what a frontend takes on. All but Connections are for HTTP.
type Caps struct {
	Connections int   // open at once on each node; 0: any number
	Requests    int   // on one connection; 0: any number
	Head        int   // bytes of a request's head
	Headers     int   // fields of it
	Body        int64 // bytes of a request's body; 0: any number
}

// Limit bounds what one client may do on one node.
type Limit struct {
	Name        string
	Key         StickyKey // what a client is known by
	Connections int       // open at once; 0: any number
	Rate        Rate      // of requests, or of connections for TCP; the zero Rate: any
	Burst       int       // requests that may come at once
	Status      int       // of the answer to what is too much
	IPv6Prefix  int       // addresses that share a prefix of this length are one client
	Size        int       // clients that are remembered; the oldest go first
	Pos         Pos
}

// Rate is so many in so much time.
type Rate struct {
	Count int
	Per   time.Duration // a second, minute or hour
}

// List is a set of addresses. What an operator adds and takes away at run time outranks it.
type List struct {
	Name  string
	CIDRs []netip.Prefix
	Pos   Pos
}

// ListEntry says of a network whether it is in a list. The entry with the longest prefix decides.
type ListEntry struct {
	Prefix netip.Prefix
	In     bool
}

// HeaderEdits change a head, in the order remove, set, add. Names keep their written form; they match without regard to case.
type HeaderEdits struct {
	Set    []Header
	Add    []Header
	Remove []string
}

// Header is one field of a message head.
type Header struct{ Name, Value string }

// Pair is one exact match of a named value. Value "" is a value like any other. The name of a header is in lower case.
type Pair struct{ Name, Value string }

// Route picks what happens to the requests that match all that it says. What is left empty matches everything.
type Route struct {
	Name    string
	Hosts   []string // lower case, no port; "*.example.com" is any name below example.com
	Paths   []string // "/a" exact; "/a/*" is "/a" and everything below it
	Methods []string
	Headers []Pair
	Queries []Pair
	Cookies []Pair
	When    *Cond // nil: always

	// Exactly one of the following.
	Backend  string
	Redirect *Redirect
	Respond  *Respond

	Limits          []string // names; on top of the frontend's
	RequestHeaders  HeaderEdits
	ResponseHeaders HeaderEdits
	Pos             Pos
}

// Redirect answers with a Location. A Location that starts with "/" keeps scheme and host of the request.
type Redirect struct {
	Location string
	Status   int // 301, 302, 303, 307, 308
}

// Respond answers without a server.
type Respond struct {
	Status      int
	Body        string
	ContentType string
}

// Balance is the way in which a backend picks a server.
type Balance uint8

const (
	RoundRobin Balance = iota + 1
	LeastConn
	SourceHash
	LeastTime
	Random
	Hash
)

func (b Balance) String() string {
	switch b {
	case RoundRobin:
		return "round_robin"
	case LeastConn:
		return "least_conn"
	case SourceHash:
		return "source_hash"
	case LeastTime:
		return "least_time"
	case Random:
		return "random"
	case Hash:
		return "hash"
	}
	return "unknown"
}

// Backend is a set of servers that can do the same work.
type Backend struct {
	Name         string
	Balance      Balance
	HashKey      HashKey       // what Hash and SourceHash are keyed by; zero for the others
	HashBound    float64       // how much more than the average a server may have under way before its keys go elsewhere; 0: any amount
	StickyCookie *StickyCookie // at most one of the two is set
	StickyTable  *StickyTable
	Check        *Check // nil: not checked, believed up until traffic fails
	CloseOnDown  bool   // on_down = "close": end sessions on a server that went down
	Servers      []*Server
	Timeouts     BackendTimeouts
	Retries      Retries
	Queue        Queue
	MaxRequests  int           // under way at once, per node; 0: no limit
	SlowStart    time.Duration // in which a server that came up gets to its full share; 0: at once
	MinHealthy   float64       // the share of healthy servers below which health is ignored; 0: it never is
	Outlier      *Outlier      // nil: traffic ejects nobody
	Pos          Pos
}

// BackendTimeouts bound the server's side.
type BackendTimeouts struct {
	Connect  time.Duration
	Response time.Duration // from the end of the request to the end of the response's head
	Server   time.Duration // no progress while a body or stream is under way
	Idle     time.Duration // an unused server connection is closed after this
}

// StickyCookie keeps a client on its server by a cookie that skein inserts. Its value is a keyed hash of the server's name and
// never shows an address.
type StickyCookie struct {
	Name     string
	Secure   bool
	HTTPOnly bool
	SameSite string // "", "Lax", "Strict", "None"
}

// StickyTable keeps a client on its server by a table that all nodes share.
type StickyTable struct {
	Key  StickyKey
	TTL  time.Duration
	Size int // entries; the oldest go first
}

// StickyKey is what a sticky table is keyed by.
type StickyKey struct {
	Source string // "client", "header", "cookie", "query"
	Name   string // of the header (in lower case), cookie or query parameter
}

// Server is one place where work gets done.
type Server struct {
	Name           string
	Address        netip.AddrPort
	Weight         int // 0..256; 0 gets only what is stuck to it
	Backup         bool
	MaxConnections int // per node, 0: no limit
	Pos            Pos
}

// CheckKind is a way of asking a server whether it is well.
type CheckKind uint8

const (
	CheckICMP CheckKind = iota + 1
	CheckTCP
	CheckHTTP
)

func (k CheckKind) String() string {
	switch k {
	case CheckICMP:
		return "icmp"
	case CheckTCP:
		return "tcp"
	case CheckHTTP:
		return "http"
	}
	return "unknown"
}

// Check is how a backend's servers are probed.
type Check struct {
	Kind     CheckKind
	Interval time.Duration
	Timeout  time.Duration
	Rise     int    // consecutive good probes that bring a server up
	Fall     int    // consecutive bad ones that take it down
	Port     uint16 // 0: the server's
	// HTTP only.
	Path   string
	Host   string // "": the server's address
	Expect Expect
}

// Expect is what a good answer looks like. The zero Expect takes any status from 200 to 399.
type Expect struct {
	Status []StatusRange
	Body   string // must occur in the first 64 KiB; "": anything
}

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ From, To int }

// Backend returns the backend of that name, or nil.
func (c *Config) Backend(name string) *Backend {
	for _, b := range c.Backends {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// BackendsBehind returns the backends that the frontends at that VIP send to, each once.
func (c *Config) BackendsBehind(vip string) []*Backend {
	var bs []*Backend
	add := func(name string) {
		if b := c.Backend(name); b != nil && !slices.Contains(bs, b) {
			bs = append(bs, b)
		}
	}
	for _, f := range c.Frontends {
		if slices.Contains(f.VIPs, vip) {
			add(f.Backend)
			for _, r := range f.Routes {
				add(r.Backend)
			}
		}
	}
	return bs
}

// List returns the list of that name, or nil.
func (c *Config) List(name string) *List {
	for _, l := range c.Lists {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// VIP returns the VIP of that name, or nil.
func (c *Config) VIP(name string) *VIP {
	for _, v := range c.VIPs {
		if v.Name == name {
			return v
		}
	}
	return nil
}
