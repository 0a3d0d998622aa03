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

// Two of three nodes lose their power, for good as their operator believes. The third is recovered: it serves the address, and takes
// changes. The lost ones are switched on again with their old data: nothing answers for the address but the survivor, and they say
// that they were left behind. Then they join anew, with empty directories.
func TestRecoverWithoutTheMajority(t *testing.T) {
	s := newStage(t)
	left := s.holding()
	var lost []*fleet.Node
	for _, n := range s.fleet.Nodes() {
		if n != left {
			lost = append(lost, n)
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*patience)
	defer cancel()
	conf := filepath.Join(left.Dir, "node.hcl")
	try := func() (string, error) {
		return left.Host.Output(ctx, *binary, "cluster", "recover", "--config", conf, "--yes")
	}
	if _, err := try(); err == nil || !strings.Contains(err.Error(), "the agent of this host runs") {
		t.Errorf("while the agent runs: %v", err)
	}
	s.must(left.Stop(ctx))
	if _, err := try(); err == nil || !strings.Contains(err.Error(), "the majority is not lost") {
		t.Errorf("while the others live: %v", err)
	}
	since := time.Now()
	for _, n := range lost {
		s.must(n.Host.PowerOff())
	}
	out, err := try()
	s.must(err)
	if !strings.Contains(out, left.Name+" is the cluster now, at generation 2") {
		t.Errorf("recovered: %s", out)
	}
	s.restart(left)
	s.until("the survivor holds the address", func() bool { return s.holder() == left.Name })
	s.settled(since)
	s.must(left.Apply(ctx, s.config()+"\n# after the recovery\n", "recovered"))

	since = time.Now()
	for _, n := range lost {
		s.must(n.Host.PowerOn())
		s.restart(n)
	}
	for _, n := range lost {
		s.leftBehind(ctx, n, left)
	}
	s.stays(since)
	if h := s.holder(); h != left.Name {
		t.Errorf("%q holds the address", h)
	}

	for _, n := range lost {
		s.joinsAnew(ctx, n, left)
	}
	s.wait("three voters", func(st *api.Status) bool { return fleet.Whole(st, 3) })
	s.stays(since)
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
	token, err := left.Token(ctx, "balancer")
	s.must(err)
	_, err = n.Skein(ctx, "cluster", "join", left.Host.Addr.String(), "--config", filepath.Join(n.Dir, "node.hcl"), "--token", token)
	s.must(err)
	s.restart(n)
}
