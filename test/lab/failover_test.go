package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
)

// excuse is from which standstill of the machine on a deadline of 250 ms may be missed.
const excuse = 100 * time.Millisecond

// result is one run of one failure.
type result struct {
	stalled       time.Duration // the machine, see stage.stalled
	disk          time.Duration // the slowest recent write of a survivor's log: an election waits for four of them
	before, after string
	moved         time.Duration // until the wire showed a new holder
	outage        lab.Outage
	two           int
	twoFor        time.Duration
}

// failures lists the requests that have failed since then.
func (s *stage) failures(since time.Time) string {
	text := ""
	for _, o := range s.load.Record.Since(since) {
		if !o.Good() {
			text += fmt.Sprintf("  begun at %7.1f ms: %s after %.1f ms\n", ms(o.At.Sub(since)), o.Err, ms(o.Took))
		}
	}
	return text
}

// timeline says who answered when.
func timeline(s *stage, since time.Time) string {
	text := ""
	for _, r := range s.watch.Timeline(s.world, since) {
		text += fmt.Sprintf("  %7.1f ms  %v for %v\n", float64(r.From.Sub(since).Microseconds())/1000, r.Holders, r.To.Sub(r.From).Round(time.Millisecond))
	}
	return text
}

// TestAllNodesRestart kills everything at once. The cluster must be back by itself, with its configuration and its address.
func TestAllNodesRestart(t *testing.T) {
	s := newStage(t)
	revision := s.whole().Revision.Number
	since := time.Now()
	for _, n := range s.fleet.Nodes() {
		s.must(n.Host.Kill())
	}
	for _, n := range s.fleet.Nodes() {
		s.must(n.Start())
	}
	o := s.settled(since)
	t.Logf("all nodes restarted: outage %v", o.Length().Round(time.Millisecond))
	if got := s.whole().Revision.Number; got != revision {
		t.Errorf("after the restart the configuration has revision %d, want %d", got, revision)
	}
	if n, d := s.watch.TwoHolders(since); n > 0 {
		t.Errorf("two nodes answered for the address in %d samples over %v\n%s", n, d, timeline(s, since))
	}
}

// TestMinimumServers has the holder alone not reach two of its three web servers: the address moves to a node that does, as on a planned move, and
// the status says why. When no node reaches them a move would help nobody, and none is made; nor does the address move when they are back.
func TestMinimumServers(t *testing.T) {
	s := newCluster(t, webOf, echoOf)
	s.trafficOn(strings.Replace(s.config(), fmt.Sprintf(`{ address = "%v/24" }`, vip), fmt.Sprintf("{\n  address = \"%v/24\"\n  minimum_servers = 2\n}", vip), 1))
	s.whole()
	var broken, balancers []*lab.Host
	for _, h := range s.world.Hosts() {
		switch h.Name {
		case "web2", "web3":
			broken = append(broken, h)
		case "lb1", "lb2", "lb3":
			balancers = append(balancers, h)
		}
	}
	short := func(who string) func(*api.Status) bool {
		return func(st *api.Status) bool {
			return slices.ContainsFunc(st.Alarms, func(a api.Alarm) bool {
				return a.What == fmt.Sprintf(`vip "public": %s fewer healthy servers than its minimum_servers`, who)
			})
		}
	}
	n, since := s.holding(), time.Now()
	s.must(s.world.Partition([]*lab.Host{n.Host}, broken))
	s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != n.Name })
	s.wait("the status to say why", short(n.Name+" sees"))
	o := s.settled(since)
	t.Logf("%s -> %s: outage %v, %d of %d requests failed: %v", n.Name, s.holder(), o.Length().Round(time.Millisecond), o.Failed, o.Requests, o.Errors)

	next, epoch := s.holder(), s.epoch()
	s.must(s.world.Partition(balancers, broken))
	s.wait("no node to see enough", short("lb1 and lb2 and lb3 see"))
	s.must(s.world.Heal())
	s.wait("all nodes to see enough again", func(st *api.Status) bool { return len(st.Alarms) == 0 })
	s.whole()
	if now := s.epoch(); now != epoch || s.holder() != next {
		t.Errorf("the address went from %s to %s (epoch %s, then %s) though no node was better", next, s.holder(), epoch, now)
	}
	if k, d := s.watch.TwoHolders(since); k > 0 {
		t.Errorf("two nodes answered for the address in %d samples over %v\n%s", k, d, timeline(s, since))
	}
}

// TestTheThirdTakesOverWhenTheNextIsUnfit kills an agent, has it back, and kills its successor. Whoever has just crashed is not trusted
// with the address for a while, at each crash for longer. It may lead, and must give the address to the third.
func TestTheThirdTakesOverWhenTheNextIsUnfit(t *testing.T) {
	s := newStage(t)
	killed := func() {
		n, since := s.holding(), time.Now()
		s.must(n.Kill())
		s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != n.Name })
		o := s.settled(since)
		t.Logf("%s -> %s: outage %v", n.Name, s.holder(), o.Length().Round(time.Millisecond))
		s.restart(n)
		s.back()
		if two, d := s.watch.TwoHolders(since); two > 0 {
			t.Errorf("two nodes answered for the address in %d samples over %v\n%s", two, d, timeline(s, since))
		}
	}
	for range 1 + *runs {
		killed()
	}
}
