package lab

import (
	"fmt"
	"testing"
	"time"

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
