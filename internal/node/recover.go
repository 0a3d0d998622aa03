package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// Reasons why a cluster is not recovered on this host.
var (
	ErrAgentRuns = cluster.ErrRunning   // this host's agent has to be stopped first
	ErrNotNewest = cluster.ErrNotNewest // another node has to do it
)

// Recovery is this host's node, whose agent does not run, and what can be known before the cluster is recovered on it.
type Recovery struct {
	r     *cluster.Recovery
	above uint64 // the generation at which this node has taken addresses by itself
	self  string

	Peers []Survivor // all other nodes of the cluster, by name
	Known Known
}

// Survivor is another node, which may be one.
type Survivor struct {
	Name, Address string
	Witness       bool
	Voter         bool
	Answers       bool
}

// Known is what this node has, as far as it can tell.
type Known struct {
	Cluster       string
	Generation    uint64
	Voters        []string
	Revision      uint64 // 0: none was applied
	Author        string
	Message       string
	Index         uint64 // of the newest entry that it has
	Committed     uint64 // up to which it knows entries to be committed
	Certificates  int
	StickyEntries int
}

// OpenRecovery reads what this node has, and asks the others whether they live.
func OpenRecovery(ctx context.Context, c *config.Node) (*Recovery, error) {
	machine := state.New()
	above, err := vip.PairGeneration(filepath.Join(c.DataDir, pairFile))
	if err != nil {
		return nil, err
	}
	r, err := cluster.OpenRecovery(cluster.Options{
		Dir: clusterDir(c), Advertise: advertise(c), Role: roleOf(c.Role), Machine: machine, Views: machine.Views(),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	v := r.View()
	rec := &Recovery{r: r, above: above, self: r.Name, Known: Known{
		Cluster: r.Cluster, Generation: v.Cluster.Generation, Voters: r.Voters, Revision: v.Revision.Number, Author: v.Revision.Author,
		Message: v.Revision.Message, Index: r.Last(), Committed: r.Known, Certificates: len(v.Certificates),
	}}
	for _, t := range machine.Tables().Stats() {
		rec.Known.StickyEntries += int(t.Entries)
	}
	if c.Name != r.Name {
		return nil, errors.Join(errors.New("node.hcl names this node "+c.Name+", and it is "+r.Name+" in the cluster"), r.Close())
	}
	rec.ask(ctx)
	return rec, nil
}

func (r *Recovery) ask(ctx context.Context) []cluster.Peer {
	peers := r.r.Ask(ctx)
	r.Peers = r.Peers[:0]
	for _, p := range peers {
		r.Peers = append(r.Peers, Survivor{Name: p.Name, Address: p.Addr.String(), Witness: p.Role == state.Witness, Voter: p.Voter, Answers: p.Answers})
	}
	return peers
}

// Self is this node's name.
func (r *Recovery) Self() string { return r.self }

// Check asks the others again and says why the cluster must not be recovered with the nodes in keep, this one among them. Nodes in
// force may answer.
func (r *Recovery) Check(ctx context.Context, keep, force []string) error {
	return r.r.Check(r.ask(ctx), keep, force)
}

// Recover does it. It returns the new generation.
func (r *Recovery) Recover(keep []string) (uint64, error) {
	if err := r.r.Recover(slices.Clone(keep), r.above); err != nil {
		return 0, err
	}
	return r.r.View().Cluster.Generation, nil
}

// Close gives the files back.
func (r *Recovery) Close() error { return r.r.Close() }
