package lab

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// Two balancers and a witness. One balancer and the witness lose their power, for good as their operator believes. The other balancer is
// recovered: it serves the address, and takes changes. The lost ones are switched on again with their old data, a majority of what was:
// nothing answers for the address but the survivor, and they say that they were left behind. Then they join anew, with empty directories.
// After that both balancers are lost, and the witness is what is left: it has everything but holds no address, nor do the balancers when
// they come back as they were. Once they have joined, the address is served again.
func TestRecoverWithoutTheMajority(t *testing.T) {
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	for _, name := range []string{"lb1", "lb2"} {
		_, err := s.fleet.Add(name)
		s.must(err)
	}
	witness, err := s.fleet.AddWitness("witness1")
	s.must(err)
	s.stageOn(webOf, echoOf)
	left := s.holding()
	ctx, cancel := context.WithTimeout(s.ctx, 3*patience)
	defer cancel()
	if _, err := s.recover(ctx, left); err == nil || !strings.Contains(err.Error(), "the agent of this host runs") {
		t.Errorf("while the agent runs: %v", err)
	}
	s.must(left.Stop(ctx))
	if _, err := s.recover(ctx, left); err == nil || !strings.Contains(err.Error(), "the majority is not lost") {
		t.Errorf("while the others live: %v", err)
	}
	since := time.Now()
	lost := s.lose(left)
	out, err := s.recover(ctx, left)
	s.must(err)
	if !strings.Contains(out, left.Name+" is the cluster now, at generation 2") {
		t.Errorf("recovered: %s", out)
	}
	s.restart(left)
	s.until("the survivor holds the address", func() bool { return s.holder() == left.Name })
	s.settled(since)
	s.must(left.Apply(ctx, s.config()+"\n# after the recovery\n", "recovered"))

	since = time.Now()
	s.comeBack(ctx, lost, left)
	s.stays(since)
	if h := s.holder(); h != left.Name {
		t.Errorf("%q holds the address", h)
	}
	for _, n := range lost {
		s.joinsAnew(ctx, n, left)
	}
	s.wait("three voters", func(st *api.Status) bool { return fleet.Whole(st, 3) })
	s.stays(since)

	lost = s.lose(witness)
	s.until("nobody answers for the address", func() bool { return s.holder() == "" })
	s.must(witness.Stop(ctx))
	out, err = s.recover(ctx, witness)
	s.must(err)
	if !strings.Contains(out, "witness1 is the cluster now, at generation 3") {
		t.Errorf("recovered: %s", out)
	}
	s.restart(witness)
	text := s.config() + "\n# by the witness\n"
	s.must(witness.Apply(ctx, text, "recovered"))
	since = time.Now()
	s.comeBack(ctx, lost, witness)
	for _, r := range s.watch.Timeline(s.world, since) {
		if len(r.Holders) > 0 {
			t.Errorf("%v answered for the address for %v: only nodes that were left behind could", r.Holders, r.To.Sub(r.From))
		}
	}
	for _, n := range lost {
		s.joinsAnew(ctx, n, witness)
	}
	s.wait("three voters", func(st *api.Status) bool { return fleet.Whole(st, 3) })
	s.until("a balancer holds the address", func() bool { return s.holder() != "" })
	s.settled(time.Now())
	s.stays(since)
	if now, err := lost[0].Skein(ctx, "show"); err != nil || now != text {
		t.Errorf("the configuration is %.200q (%v), want what the witness was given", now, err)
	}
}

// recover types the command on a node.
func (s *stage) recover(ctx context.Context, n *fleet.Node) (string, error) {
	return n.Host.Output(ctx, *binary, "cluster", "recover", "--config", filepath.Join(n.Dir, "node.hcl"), "--yes")
}

// lose takes the power from all nodes but left, and returns them.
func (s *stage) lose(left *fleet.Node) (lost []*fleet.Node) {
	s.t.Helper()
	for _, n := range s.fleet.Nodes() {
		if n != left {
			s.must(n.Host.PowerOff())
			lost = append(lost, n)
		}
	}
	return lost
}

// comeBack starts lost nodes with their old data, and waits until each says that left has gone on without it.
func (s *stage) comeBack(ctx context.Context, lost []*fleet.Node, left *fleet.Node) {
	s.t.Helper()
	for _, n := range lost {
		s.must(n.Host.PowerOn())
		s.restart(n)
	}
	for _, n := range lost {
		s.leftBehind(ctx, n, left)
	}
}

// leftBehind waits until n says that the cluster goes on without it, by the word of left.
func (s *stage) leftBehind(ctx context.Context, n, left *fleet.Node) {
	s.t.Helper()
	s.until(n.Name+" says that it was left behind", func() bool {
		st, err := n.Status(ctx)
		return err == nil && slices.ContainsFunc(st.Alarms, func(a api.Alarm) bool { return strings.HasPrefix(a.What, "left behind: "+left.Name) })
	})
}

// joinsAnew lets n join the cluster of left with an empty directory.
func (s *stage) joinsAnew(ctx context.Context, n, left *fleet.Node) {
	s.t.Helper()
	s.must(n.Stop(ctx))
	s.must(os.RemoveAll(filepath.Join(n.Dir, "cluster")))
	token, err := left.Token(ctx, n.Role)
	s.must(err)
	_, err = n.Skein(ctx, "cluster", "join", left.Host.Addr.String(), "--config", filepath.Join(n.Dir, "node.hcl"), "--token", token)
	s.must(err)
	s.restart(n)
}
