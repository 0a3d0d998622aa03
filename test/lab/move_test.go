package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// cargo is what must arrive when an address moves: connections in use, idle ones, streams and a download that runs all the time.
type cargo struct {
	s        *stage
	t        *testing.T // of the whole test: connections outlive its parts
	since    time.Time
	active   []*lab.Load
	idle     []*lab.Idler
	streams  []*lab.Stream
	download *lab.Download
}

const (
	cargoActive  = 25
	cargoIdle    = 25
	cargoStreams = 5
	cargoBytes   = 400_000_000
	cargoRate    = 4_000_000
)

// cargo starts the traffic from the client, through the address.
func (s *stage) cargo() *cargo {
	s.t.Helper()
	web := netip.AddrPortFrom(vip, 80)
	c := &cargo{s: s, t: s.t, since: time.Now()}
	for range cargoActive {
		l := &lab.Load{Target: web, KeepAlive: true, Every: 40 * time.Millisecond, Deadline: 5 * time.Second}
		c.active = append(c.active, l)
		s.background("a client that keeps its connection", func(ctx context.Context) error { return l.Run(ctx, s.client) })
	}
	for range cargoStreams {
		st := &lab.Stream{Target: netip.AddrPortFrom(vip, tcpPort), Every: 20 * time.Millisecond}
		c.streams = append(c.streams, st)
		s.background("a stream", func(ctx context.Context) error { return st.Run(ctx, s.client) })
	}
	c.download = &lab.Download{Target: web, Path: fmt.Sprintf("/bytes/%d", cargoBytes), Rate: cargoRate}
	s.background("a download", func(ctx context.Context) error { return c.download.Run(ctx, s.client) })
	c.openIdle()
	s.until("the cargo is under way", func() bool {
		return c.download.Report().Bytes > 0 &&
			!slices.ContainsFunc(c.active, func(l *lab.Load) bool { return len(l.Record.Since(c.since)) == 0 }) &&
			!slices.ContainsFunc(c.streams, func(st *lab.Stream) bool { return st.Report().Echoed == 0 })
	})
	return c
}

// openIdle has a full set of idle connections.
func (c *cargo) openIdle() {
	for range cargoIdle {
		i := &lab.Idler{Target: netip.AddrPortFrom(vip, 80)}
		c.s.must(i.Open(c.s.client))
		c.t.Cleanup(i.Close)
		c.idle = append(c.idle, i)
	}
}

// arrived wants everything to be as if nothing had happened. Idle connections may have been closed, as servers do, but nothing else;
// those that are open work.
func (c *cargo) arrived(when string) {
	c.s.t.Helper()
	t := c.s.t
	failed, requests := 0, 0
	for _, l := range c.active {
		for _, o := range l.Record.Since(c.since) {
			requests++
			if !o.Good() {
				failed++
				t.Logf("%s: a request on a kept connection: %s after %v", when, o.Err, o.Took)
			}
		}
	}
	if failed > 0 {
		t.Errorf("%s: %d of %d requests on kept connections failed", when, failed, requests)
	}
	closed := 0
	for _, i := range c.idle {
		switch what := i.Look(); what {
		case lab.IdleClosed:
			closed++
		case lab.IdleOpen:
			if _, err := i.Use(); err != nil {
				t.Errorf("%s: an idle connection broke when it was used: %v", when, err)
			}
		default:
			t.Errorf("%s: an idle connection is lost: %s", when, what)
		}
	}
	for _, st := range c.streams {
		if r := st.Report(); r.Lost(5*time.Second) != "" {
			t.Errorf("%s: a stream is lost: %s after %d numbers", when, r.Lost(5*time.Second), r.Echoed)
		} else {
			t.Logf("%s: a stream's longest silence: %v", when, r.Longest.Round(time.Millisecond))
		}
	}
	if r := c.download.Report(); r.Why != "" || r.Done && r.Bytes != cargoBytes {
		t.Errorf("%s: the download broke off after %d bytes: %s", when, r.Bytes, r.Why)
	}
	t.Logf("%s: %d requests on kept connections, %d failed; %d idle connections, %d of them closed in good order; %d bytes downloaded",
		when, requests, failed, len(c.idle), closed, c.download.Report().Bytes)
}

// nobodyNoticed wants the fresh connections since then to be all good, and the address never to have had two holders.
func (s *stage) nobodyNoticed(what string, since time.Time) result {
	s.t.Helper()
	r := result{outage: s.settled(since), stalled: s.stalled(since), after: s.holder()}
	if o := r.outage; o.Failed > 0 && (r.stalled < excuse || o.Failed > o.Errors["timeout"]) {
		s.t.Errorf("%s: %d of %d requests failed: %v; the machine stood still for %v\n%s", what, o.Failed, o.Requests, o.Errors, r.stalled, s.failures(since))
	}
	r.two, r.twoFor = s.watch.TwoHolders(since)
	if r.two > 0 {
		s.t.Errorf("%s: two nodes answered for the address in %d samples over %v\n%s", what, r.two, r.twoFor, timeline(s, since))
	}
	s.t.Logf("%s: outage %v, %d of %d requests failed; the machine stood still for %v", what, r.outage.Length(), r.outage.Failed, r.outage.Requests, r.stalled.Round(time.Millisecond))
	return r
}

// skein types a command on a node.
func (s *stage) skein(n *fleet.Node, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	out, err := n.Skein(ctx, args...)
	if err != nil {
		s.t.Fatalf("skein %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// answers waits until that node answers for the address.
func (s *stage) answers(name string) {
	s.t.Helper()
	s.until(name+" answers for the address", func() bool { return s.holder() == name })
}

// TestPlannedMovesLoseNothing moves the address around while everything that a client can have open is open: once, twice in quick
// succession to a third node, and twice in quick succession back again. Then a node is drained, and enabled, and one is stopped.
func TestPlannedMovesLoseNothing(t *testing.T) {
	s := newStage(t)
	s.whole()
	report := newReport("move")
	c := s.cargo()
	var first string
	move := func(to string, more ...string) {
		t.Helper()
		out := s.skein(s.fleet.Nodes()[0], append([]string{"vip", "move", "public", to, "--no-wait"}, more...)...)
		t.Log(strings.TrimSpace(out))
	}
	others := func(name string) (names []string) {
		for _, n := range s.fleet.Nodes() {
			if n.Name != name {
				names = append(names, n.Name)
			}
		}
		return names
	}
	played := func(name string, times int, what func()) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			for range times {
				s.whole()
				first = s.holder()
				since := time.Now()
				what()
				r := s.nobodyNoticed(name, since)
				r.before = first
				report.add(name, r)
				c.arrived(name)
				c.openIdle()
				if t.Failed() {
					return
				}
			}
		})
		s.t = t
	}

	played("moved", *runs, func() {
		to := others(first)[0]
		move(to)
		s.answers(to)
	})
	played("moved twice, to a third node", *runs, func() {
		o := others(first)
		move(o[0])
		move(o[1])
		s.answers(o[1])
	})
	played("moved twice, there and back", *runs, func() {
		move(others(first)[0])
		move(first)
		s.answers(first)
	})
	played("drained", *runs, func() {
		s.skein(s.fleet.Nodes()[0], "node", "drain", first, "--no-wait")
		s.until("another node holds the address", func() bool { return s.holder() != first })
		s.wait("the drained node to lead no more", func(st *api.Status) bool { return st.AsOf.Leader != "" && st.AsOf.Leader != first })
		s.skein(s.fleet.Nodes()[1], "node", "enable", first)
	})
	report.write(t)
}

// TestOrderlyStopLosesNoRequest ends the agent that holds the address by SIGTERM, while requests go on. The connections that it has get
// the time that it was given.
func TestOrderlyStopLosesNoRequest(t *testing.T) {
	s := newStage(t)
	report := newReport("stop")
	for range *runs {
		s.whole()
		n := s.holding()
		c := &cargo{s: s, t: t, since: time.Now(), download: &lab.Download{}}
		for range cargoActive {
			l := &lab.Load{Target: netip.AddrPortFrom(vip, 80), KeepAlive: true, Every: 40 * time.Millisecond, Deadline: 5 * time.Second}
			c.active = append(c.active, l)
			s.background("a client that keeps its connection", func(ctx context.Context) error { return l.Run(ctx, s.client) })
		}
		c.openIdle()
		since := time.Now()
		s.must(n.Agent().Signal(unix.SIGTERM))
		s.until("another node holds the address", func() bool { return s.holder() != n.Name })
		s.ended(n)
		r := s.nobodyNoticed("stopped", since)
		r.before = n.Name
		report.add("agent ended (SIGTERM)", r)
		c.arrived("stopped")
		s.restart(n)
	}
	report.write(t)
}

// TestClientsOfADeadHolderAreWoken powers off the node that holds the address. Its clients that only wait would wait for ever: nobody
// tells them. The next holder does, all of them.
func TestClientsOfADeadHolderAreWoken(t *testing.T) {
	s := newStage(t)
	s.whole()
	c := &cargo{s: s, t: t, since: time.Now(), download: &lab.Download{}}
	c.openIdle()
	c.openIdle()
	n := s.holding()
	s.wait("the others to know who is connected", func(st *api.Status) bool {
		for _, o := range st.Nodes {
			if o.Name == n.Name {
				continue
			}
			if o.Report == nil || !slices.ContainsFunc(o.Report.Peers, func(p api.PeerReport) bool { return p.Name == n.Name && p.Connections >= len(c.idle) }) {
				return false
			}
		}
		return true
	})
	since := time.Now()
	s.must(n.Host.PowerOff())
	s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != n.Name })
	moved := time.Since(since)
	left := c.idle
	s.until("every client has been reset", func() bool {
		left = slices.DeleteFunc(slices.Clone(left), func(i *lab.Idler) bool {
			what := i.Look()
			if what != lab.IdleOpen && what != "reset" {
				t.Errorf("a client that waits got: %s", what)
			}
			return what != lab.IdleOpen
		})
		return len(left) == 0
	})
	t.Logf("%d of %d clients reset, the last %v after the power went off, %v after the address was taken over",
		len(c.idle)-len(left), len(c.idle), time.Since(since).Round(time.Millisecond), (time.Since(since) - moved).Round(time.Millisecond))
}
