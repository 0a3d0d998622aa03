// Package healthcheck finds out which servers answer: it probes each one by ICMP, TCP or HTTP and turns the results into
// verdicts by a pure rise/fall machine.
//
// It is not about nodes (cluster sees to those) and decides nothing about admin state, which outranks a verdict elsewhere.
// The one rule: a verdict changes only in standing.step; probers, clocks and goroutines are edges around it. Verdicts are
// local to a node: each acts on what its own path reaches.
package healthcheck

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/watch"
)

// Key names a server: server names are unique within their backend only.
type Key struct{ Backend, Server string }

func (k Key) String() string { return k.Backend + "/" + k.Server }

// Target is one server and how it is probed.
type Target struct {
	Key
	Address netip.AddrPort
	Check   *config.Check // nil: probed only after traffic has failed there, see Failed
}

// same reports whether u asks for nothing else than t does. Configurations are parsed anew for every change, so that the
// checks are compared by value.
func (t Target) same(u Target) bool {
	return t.Key == u.Key && t.Address == u.Address && reflect.DeepEqual(t.Check, u.Check)
}

// Verdict is what is known of one server.
type Verdict struct {
	Up          bool
	Since       time.Time     // of the last change of Up
	Why         string        // the last result in words: "HTTP 503, want 200-399"
	Passive     bool          // Up was last changed by traffic, not by a probe
	Checks      uint64        // probes that ended
	Failures    uint64        // bad probes, and connection failures seen by traffic
	LastLatency time.Duration // of the last good probe
}

// Targets returns a target for every server of c.
func Targets(c *config.Config) []Target {
	var ts []Target
	for _, b := range c.Backends {
		for _, s := range b.Servers {
			ts = append(ts, Target{Key: Key{b.Name, s.Name}, Address: s.Address, Check: b.Check})
		}
	}
	return ts
}

// republish bounds how old the counters and latencies of a published verdict get. Changes of Up or Why are published at once.
const republish = time.Second

// Checker probes a set of targets. Any goroutine may call any method.
type Checker struct {
	// Immutable.
	log      *slog.Logger
	newProbe func(Target) probe // a fake in tests
	urgent   chan struct{}      // one token: something worth publishing at once

	verdicts watch.Value[map[Key]Verdict]
	byKey    atomic.Pointer[map[Key]*member] // a copy of members, for Failed

	mu sync.Mutex
	// mu guards the following.
	members map[Key]*member
	seeds   map[Key]bool
	run     context.Context // nil until Run
	wg      sync.WaitGroup
	stale   bool // a counter changed since the last publication
}

// member is one target and what is known of it.
type member struct {
	// Immutable.
	Target
	pace  pace
	probe probe

	failed atomic.Uint64 // connection failures seen by traffic and not yet counted
	wake   chan struct{} // one token: failed is not zero

	// Guarded by Checker.mu.
	standing standing
	verdict  Verdict
	cancel   context.CancelFunc // nil while its goroutine does not run
}

// New returns a Checker without targets.
func New(log *slog.Logger) *Checker {
	return &Checker{log: log, newProbe: newProbe, urgent: make(chan struct{}, 1), members: map[Key]*member{}}
}

// Seed gives the verdicts to start with for servers that have not been probed yet, as the cluster last saw them. It may come
// before or after Set; the first probe's own result outranks it.
func (c *Checker) Seed(up map[Key]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seeds = maps.Clone(up)
	for _, m := range c.members {
		if up, ok := c.seeds[m.Key]; ok && !m.standing.decided && m.Check != nil {
			m.seed(up)
		}
	}
	c.publish()
}

// Set replaces the targets. A target that stays as it was keeps its verdict, its counters and its rhythm. One whose check
// changed keeps its verdict until the first result of the new check, which decides at once; one whose check was taken away and that is
// down is probed as Failed says. A new address is a new server.
func (c *Checker) Set(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[Key]*member, len(targets))
	for _, t := range targets {
		old := c.members[t.Key]
		if old != nil && old.same(t) {
			next[t.Key] = old
			continue
		}
		m := c.newMember(t)
		if old != nil && old.Address == t.Address {
			m.standing.up, m.verdict = old.standing.up, old.verdict
		} else if up, ok := c.seeds[t.Key]; ok && old == nil && t.Check != nil {
			m.seed(up)
		}
		next[t.Key] = m
	}
	for k, old := range c.members {
		if next[k] != old && old.cancel != nil {
			old.cancel()
		}
	}
	c.members = next
	index := maps.Clone(next)
	c.byKey.Store(&index)
	if c.run != nil {
		for _, m := range next {
			c.start(m)
		}
	}
	c.publish()
}

func (c *Checker) newMember(t Target) *member {
	why := "not probed yet"
	if t.Check == nil {
		why = "not checked"
	}
	return &member{
		Target: t, pace: paceOf(t), probe: c.newProbe(t), wake: make(chan struct{}, 1),
		// A server without a check is up by decision: three failures take it down from the start.
		standing: standing{up: true, decided: t.Check == nil},
		verdict:  Verdict{Up: true, Since: time.Now(), Why: why},
	}
}

func (m *member) seed(up bool) {
	m.standing.up, m.verdict.Up = up, up
	m.verdict.Why = "not probed yet; as the cluster last saw it"
}

// Verdicts returns the verdicts of all targets. A published map is never changed afterwards.
func (c *Checker) Verdicts() *watch.Value[map[Key]Verdict] { return &c.verdicts }

// Failed reports that a connection of traffic to the server failed before it carried anything. It counts like a bad probe,
// and the next probe comes at once, so that a single lost connection is set right as fast as it was counted. A server without
// a check goes down after three failures with no good probe between them, and is then probed by TCP connect every second
// until it answers. Failed never blocks and takes no lock; an unknown key is ignored.
func (c *Checker) Failed(k Key) {
	index := c.byKey.Load()
	if index == nil {
		return
	}
	m := (*index)[k]
	if m == nil {
		return
	}
	m.failed.Add(1)
	token(m.wake)
}

// Run probes until ctx ends, and returns when the last probe has. It is called once.
func (c *Checker) Run(ctx context.Context) error {
	c.mu.Lock()
	c.run = ctx
	for _, m := range c.members {
		c.start(m)
	}
	c.mu.Unlock()

	tick := time.NewTicker(republish)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.urgent:
			c.mu.Lock()
			c.publish()
			c.mu.Unlock()
		case <-tick.C:
			c.mu.Lock()
			if c.stale {
				c.publish()
			}
			c.mu.Unlock()
		}
	}
	c.wg.Wait() // start adds nothing once ctx has ended
	return nil
}

// start starts m's goroutine unless it runs already. c.mu is held.
func (c *Checker) start(m *member) {
	if m.cancel != nil || c.run.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.run)
	m.cancel = cancel
	c.wg.Go(func() {
		defer cancel()
		c.watch(ctx, m)
	})
}

// publish makes the current verdicts visible. c.mu is held.
func (c *Checker) publish() {
	vs := make(map[Key]Verdict, len(c.members))
	for k, m := range c.members {
		vs[k] = m.verdict
	}
	c.stale = false
	c.verdicts.Set(vs)
}

// result is what one probe, or some failed connections, said.
type result struct {
	good    bool
	void    bool // the probe could not be made: says nothing about the server
	passive bool // seen by traffic
	count   uint64
	why     string
	latency time.Duration
}

// record feeds r to m's machine and returns where m stands afterwards. A member that Set has replaced is left alone.
func (c *Checker) record(m *member, r result) standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members[m.Key] != m {
		return m.standing
	}
	before, v := m.verdict, &m.verdict
	switch {
	case r.void:
	case r.passive:
		v.Failures += r.count
		for range min(r.count, uint64(m.pace.fall)) {
			m.standing = m.standing.step(false, true, m.pace.rise, m.pace.fall)
		}
	default:
		v.Checks++
		m.standing = m.standing.step(r.good, false, m.pace.rise, m.pace.fall)
		if r.good {
			v.LastLatency = r.latency
		} else {
			v.Failures++
		}
	}
	v.Why = r.why
	if v.Up = m.standing.up; v.Up != before.Up {
		v.Since, v.Passive = time.Now(), r.passive
		level, text := slog.LevelInfo, "server up"
		if !v.Up {
			level, text = slog.LevelWarn, "server down"
		}
		c.log.Log(context.Background(), level, text, "backend", m.Backend, "server", m.Server, "addr", m.Address,
			"why", r.why, "passive", r.passive, "was_for", v.Since.Sub(before.Since).Round(time.Millisecond))
	}
	if v.Up != before.Up || v.Why != before.Why {
		token(c.urgent)
	} else {
		c.stale = true
	}
	return m.standing
}

// token leaves a token in a channel of one, unless there is one already.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pace is how often and how strictly a target is looked at.
type pace struct {
	interval, timeout time.Duration
	rise, fall        int
	lazy              bool // probed only while in doubt or down
}

// Of a server without a check: see Failed.
var lazyPace = pace{interval: time.Second, timeout: time.Second, rise: 1, fall: 3, lazy: true}

func paceOf(t Target) pace {
	if t.Check == nil {
		return lazyPace
	}
	return pace{
		interval: cmp.Or(max(t.Check.Interval, 0), 2*time.Second),
		timeout:  cmp.Or(max(t.Check.Timeout, 0), time.Second),
		rise:     max(t.Check.Rise, 1),
		fall:     max(t.Check.Fall, 1),
	}
}
