package lab

import (
	"context"
	"strings"
	"time"

	"github.com/skeinlb/skein/api"
)

// pairIsRecovered: the host with the only vote is lost for good. The other one has taken the address by itself, and serves; but nothing can
// be changed. It is recovered: it serves, and takes changes. The lost host comes back with its old data, holds nothing and says that it was
// left behind; with an empty directory it joins anew, and the two are a pair again.
func (s *stage) pairIsRecovered() {
	t := s.t
	lost, left := s.fleet.Node("lb1"), s.fleet.Node("lb2") // lb1 has founded the cluster, and votes
	ctx, cancel := context.WithTimeout(s.ctx, 2*patience)
	defer cancel()
	since := time.Now()
	s.must(lost.Host.PowerOff())
	s.until("the survivor holds the address", func() bool { return s.holder() == left.Name })
	s.wait("the survivor to say that nothing can be changed", func(st *api.Status) bool { return st.Cluster.Pair != nil && st.Cluster.Pair.ReadOnly })
	s.must(left.Stop(ctx))
	out, err := s.recover(ctx, left)
	s.must(err)
	if !strings.Contains(out, "lb2 is the cluster now, at generation 65") { // beyond what the lost one can have reached by itself
		t.Errorf("recovered: %s", out)
	}
	s.restart(left)
	s.until("the survivor holds the address again", func() bool { return s.holder() == left.Name })
	s.must(left.Apply(ctx, s.config()+"\n# after the recovery\n", "recovered"))
	s.settled(since)

	since = time.Now()
	s.must(lost.Host.PowerOn())
	s.restart(lost)
	s.leftBehind(ctx, lost, left)
	s.heldThroughout(left.Name, since)
	if err := lost.Apply(ctx, s.config()+"\n# too late\n", "by the lost node"); err == nil {
		t.Error("a node that was left behind takes a change")
	}

	s.joinsAnew(ctx, lost, left)
	s.ready()
	s.heldThroughout(left.Name, since)
}
