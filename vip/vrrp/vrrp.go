// Package vrrp is the Virtual Router Redundancy Protocol, versions 2 (RFC 3768) and 3 (RFC 9568), as far as a node needs it to stand
// in a group beside routers that are not skein: the packet, and one router's state machine.
//
// It opens no socket, reads no clock and holds no address: time and packets go in, what to do comes out. It is for joining a group
// that exists, so that a pair of hosts can be taken over one by one; a cluster of skein's own needs none of it. The one rule: an
// advertisement that does not belong to the group changes nothing.
package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Version of the protocol.
type Version uint8

const (
	V2 Version = 2 // RFC 3768: IPv4 only, whole seconds
	V3 Version = 3 // RFC 9568: IPv4 or IPv6, centiseconds
)

// Bounds of the protocol.
const (
	Protocol     = 112 // IP protocol number
	HopLimit     = 255 // of every advertisement; another one was forwarded, or forged (RFC 9568, 5.1.1.3)
	OwnerPrio    = 255 // of the router that owns the addresses; skein never does
	resign       = 0   // priority of a router that stops (RFC 9568, 5.2.4)
	maxAddresses = 255
)

// Where advertisements go (RFC 9568, 5.1.1.2 and 5.1.2.2).
var (
	Group4 = netip.MustParseAddr("224.0.0.18")
	Group6 = netip.MustParseAddr("ff02::12")
)

// Config is one virtual router as its configuration has it. All routers of a group must agree on all but Priority, Preempt and Local.
type Config struct {
	ID        uint8 // 1..255
	Version   Version
	Priority  uint8         // 1..254
	Interval  time.Duration // between advertisements; V2: whole seconds up to 255, V3: 10 ms to 40.95 s
	Preempt   bool          // take over from a router of lower priority
	Addresses []netip.Addr  // all of one family
	Local     netip.Addr    // primary address of the interface, of the same family; link-local for IPv6
}

// Check reports what is wrong with c.
func (c *Config) Check() error {
	switch {
	case c.ID == 0:
		return fmt.Errorf("router_id 0: want 1 to 255")
	case c.Version != V2 && c.Version != V3:
		return fmt.Errorf("version %d: want 2 or 3", c.Version)
	case c.Priority == 0 || c.Priority == OwnerPrio:
		return fmt.Errorf("priority %d: want 1 to 254", c.Priority)
	case c.Version == V2 && (c.Interval < time.Second || c.Interval > 255*time.Second || c.Interval%time.Second != 0):
		return fmt.Errorf("interval %v: version 2 wants whole seconds, 1s to 255s", c.Interval)
	case c.Version == V3 && (c.Interval < 10*time.Millisecond || c.Interval > 40950*time.Millisecond || c.Interval%(10*time.Millisecond) != 0):
		return fmt.Errorf("interval %v: version 3 wants hundredths of a second, 10ms to 40.95s", c.Interval)
	case len(c.Addresses) == 0 || len(c.Addresses) > maxAddresses:
		return fmt.Errorf("%d addresses: want 1 to %d", len(c.Addresses), maxAddresses)
	}
	for _, a := range c.Addresses {
		if a.Is4() != c.Addresses[0].Is4() {
			return fmt.Errorf("%v and %v are of two families: a virtual router has one", c.Addresses[0], a)
		}
	}
	if c.Version == V2 && c.Addresses[0].Is6() {
		return fmt.Errorf("%v: version 2 knows no IPv6", c.Addresses[0])
	}
	return nil
}

// State of a router (RFC 9568, 6.4). "Active" was called Master before.
type State uint8

const (
	Initialize State = iota
	Backup
	Active
)

func (s State) String() string { return [...]string{"initialize", "backup", "active"}[s] }

// Advert is what an advertisement says.
type Advert struct {
	Version   Version
	ID        uint8
	Priority  uint8         // 0: its sender stops
	Interval  time.Duration // the sender's
	Addresses []netip.Addr
}

// Router is one virtual router's state machine (RFC 9568, 6.4). Times are nanoseconds of one clock that never goes back.
type Router struct {
	conf  Config
	state State

	interval int64 // of the active router, as it said: Active_Adver_Interval
	adverAt  int64 // Active: when the next advertisement is due
	downAt   int64 // Backup: when the active router counts as gone
	master   netip.Addr

	out []Action
}

// Action is something for the caller to do, in order.
type Action struct {
	Kind     ActionKind
	Priority uint8 // Advertise
}

// ActionKind is what to do.
type ActionKind uint8

const (
	Advertise ActionKind = iota + 1 // send an advertisement of that priority
	Claim                           // we are active now: hold the addresses and announce them
	Yield                           // we are not active any more: let go of the addresses
)

func (k ActionKind) String() string { return [...]string{"", "advertise", "claim", "yield"}[k] }

// New returns a router that does nothing until Startup. c has passed Check.
func New(c Config) *Router { return &Router{conf: c, interval: int64(c.Interval)} }

// State returns where r is.
func (r *Router) State() State { return r.state }

// Master returns who was last heard as the active router; the zero Addr: nobody, or ourselves.
func (r *Router) Master() netip.Addr { return r.master }

// Config returns r's configuration.
func (r *Router) Config() *Config { return &r.conf }

// Out returns what to do and forgets it. The result is good until the next call of r.
func (r *Router) Out() []Action {
	out := r.out
	r.out = r.out[:0]
	return out
}

// Next returns when Tick must be called at the latest; 0: no need.
func (r *Router) Next() int64 {
	switch r.state {
	case Backup:
		return r.downAt
	case Active:
		return r.adverAt
	}
	return 0
}

// Startup lets r take part (6.4.1). A router that does not own the addresses starts as a backup.
func (r *Router) Startup(now int64) {
	if r.state != Initialize {
		return
	}
	r.interval = int64(r.conf.Interval)
	r.state = Backup
	r.downAt = now + r.downInterval()
}

// Assume makes a router active that holds the addresses already: it goes on, and yields to whoever outranks it. The RFC knows no such
// start; it is a router whose Startup and Active_Down_Timer both happened before anybody counted.
func (r *Router) Assume(now int64) {
	if r.state == Backup {
		r.downAt = now
		r.Tick(now)
	}
}

// Shutdown ends r's part: an active router says so, and the next one takes over after its skew time (6.4.2 and 6.4.3).
func (r *Router) Shutdown() {
	if r.state == Active {
		r.do(Action{Kind: Advertise, Priority: resign})
		r.do(Action{Kind: Yield})
	}
	r.state, r.master = Initialize, netip.Addr{}
}

// Tick does what is due at now.
func (r *Router) Tick(now int64) {
	switch {
	case r.state == Backup && now >= r.downAt:
		r.state, r.master = Active, netip.Addr{}
		r.do(Action{Kind: Advertise, Priority: r.conf.Priority})
		r.do(Action{Kind: Claim})
		r.adverAt = now + int64(r.conf.Interval)
	case r.state == Active && now >= r.adverAt:
		r.do(Action{Kind: Advertise, Priority: r.conf.Priority})
		r.adverAt = now + int64(r.conf.Interval)
	}
}

// Hear takes in an advertisement from another router. Of those that do not belong to the group it says why and does nothing (7.1).
func (r *Router) Hear(now int64, a *Advert, from netip.Addr) (dropped string) {
	switch {
	case a.ID != r.conf.ID:
		return "another virtual router"
	case a.Version != r.conf.Version:
		return "another version"
	case from == r.conf.Local:
		return "our own"
	case r.conf.Version == V2 && a.Priority != resign && a.Interval != r.conf.Interval:
		return "another interval" // RFC 3768, 7.1: MUST discard
	case r.state == Initialize:
		return "not taking part"
	}
	switch r.state {
	case Backup:
		r.hearAsBackup(now, a, from)
	case Active:
		r.hearAsActive(now, a, from)
	}
	return ""
}

// hearAsBackup is 6.4.2.
func (r *Router) hearAsBackup(now int64, a *Advert, from netip.Addr) {
	switch {
	case a.Priority == resign:
		r.downAt = now + r.skew()
	case !r.conf.Preempt || a.Priority >= r.conf.Priority:
		r.follow(now, a, from)
	}
	// Else it is of lower priority and we preempt: it is discarded, and the timer goes on.
}

// hearAsActive is 6.4.3.
func (r *Router) hearAsActive(now int64, a *Advert, from netip.Addr) {
	switch {
	case a.Priority == resign:
		r.do(Action{Kind: Advertise, Priority: r.conf.Priority})
		r.adverAt = now + int64(r.conf.Interval)
	case a.Priority > r.conf.Priority, a.Priority == r.conf.Priority && from.Compare(r.conf.Local) > 0:
		r.state = Backup
		r.do(Action{Kind: Yield})
		r.follow(now, a, from)
	default:
		// RFC 9568: assert ourselves at once, so that the other one and the switches learn who is active. RFC 3768 only discards,
		// which the next advertisement makes good; saying it at once harms nobody.
		r.do(Action{Kind: Advertise, Priority: r.conf.Priority})
		r.adverAt = now + int64(r.conf.Interval)
	}
}

// follow takes the sender for the active router.
func (r *Router) follow(now int64, a *Advert, from netip.Addr) {
	if r.conf.Version == V3 {
		r.interval = int64(a.Interval)
	}
	r.master = from
	r.downAt = now + r.downInterval()
}

// Skew is after how long a backup like c takes over from an active router that said good-bye. Routers of lower priority wait longer.
func (c *Config) Skew() time.Duration { return time.Duration(c.skew(int64(c.Interval))) }

// skew is Skew_Time (6.1; RFC 3768, 6.1, counts it in seconds).
func (c *Config) skew(interval int64) int64 {
	if c.Version == V2 {
		interval = int64(time.Second)
	}
	return (256 - int64(c.Priority)) * interval / 256
}

func (r *Router) skew() int64 { return r.conf.skew(r.interval) }

// downInterval is Active_Down_Interval.
func (r *Router) downInterval() int64 { return 3*r.interval + r.skew() }

func (r *Router) do(a Action) { r.out = append(r.out, a) }

// Same reports whether a speaks of the addresses that r has, in any order. A difference is a mistake in somebody's configuration,
// which the RFC asks to log, not to act on.
func (r *Router) Same(a *Advert) bool {
	return len(a.Addresses) == len(r.conf.Addresses) && !slices.ContainsFunc(a.Addresses, func(x netip.Addr) bool {
		return !slices.Contains(r.conf.Addresses, x)
	})
}
