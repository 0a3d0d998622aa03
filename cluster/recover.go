package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/state"
)

// Reasons why a cluster is not recovered.
var (
	ErrRunning   = errors.New("an agent of this node runs")
	ErrNotLost   = errors.New("the majority is not lost")
	ErrNotNewest = errors.New("another survivor knows more")
)

// Recovery is a surviving node, at rest, that can be made a cluster of its own after the majority of voters is lost for good.
// It has replayed all of its log: what was committed as far as this node can know, and what may have been.
type Recovery struct {
	c *Cluster

	Name      string
	Cluster   string
	Voters    []string // of the old cluster
	Known     uint64   // index up to which this node knows entries to be committed
	last      logEnd   // of all that it has
	term      uint64   // newer than every one that it has seen
	nextIndex uint64
}

// logEnd is where a node's log ends. It is on the wire, in the answer to frameLog.
type logEnd struct {
	Index      uint64
	Term       uint64
	Generation uint64
}

// newer reports whether a log that ends at e may hold something that one that ends at o does not.
func (e logEnd) newer(o logEnd) bool { return e.Term > o.Term || e.Term == o.Term && e.Index > o.Index }

// Peer is another node of the old cluster, as a survivor sees it.
type Peer struct {
	Name    string
	Addr    netip.AddrPort
	Role    state.Role
	Voter   bool
	Answers bool // its agent runs
	Newer   bool // and its log may hold something that this node's does not
	Ahead   bool // and it is of a newer generation: it has been recovered itself
}

// OpenRecovery opens a member whose agent does not run, and replays its log. Options need no Network that listens.
func OpenRecovery(opt Options) (*Recovery, error) {
	c, err := Open(opt)
	if errors.Is(err, errBusy) {
		return nil, fmt.Errorf("%w: %w", ErrRunning, err)
	}
	if err != nil {
		return nil, err
	}
	r := &Recovery{c: c, Name: c.name, Cluster: c.ID()}
	if err := r.replay(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return r, nil
}

// Close gives the files back.
func (r *Recovery) Close() error { return r.c.Close() }

// View is what this node wants by all of its log.
func (r *Recovery) View() *state.View { return r.c.view() }

// Last is the index of the newest entry that this node has.
func (r *Recovery) Last() uint64 { return r.last.Index }

// replay applies the newest snapshot and then every entry, committed or not: whatever a lost majority may have acknowledged and this
// node has is kept.
func (r *Recovery) replay() error {
	c := r.c
	metas, err := c.snaps.List()
	if err != nil {
		return err
	}
	var voters raft.Configuration
	if len(metas) > 0 {
		_, b, err := c.snaps.Open(metas[0].ID)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", metas[0].ID, err)
		}
		defer b.Close()
		if _, err := io.CopyN(io.Discard, b, 8); err != nil {
			return fmt.Errorf("snapshot %s: %w", metas[0].ID, err)
		}
		if err := c.opt.Machine.Restore(b); err != nil {
			return fmt.Errorf("snapshot %s: %w", metas[0].ID, err)
		}
		r.last, voters = logEnd{Index: metas[0].Index, Term: metas[0].Term}, metas[0].Configuration
		r.Known = metas[0].Index
	}
	committed, err := c.store.commitIndex()
	if err != nil {
		return err
	}
	r.Known = max(r.Known, committed)
	_, last, _ := c.store.extent()
	for i := r.last.Index + 1; i <= last; i++ {
		var l raft.Log
		if err := c.store.GetLog(i, &l); err != nil {
			return fmt.Errorf("log entry %d: %w", i, err)
		}
		switch l.Type {
		case raft.LogCommand:
			if err, stopped := c.opt.Machine.Apply(l.Index, l.Data).(error); stopped {
				return fmt.Errorf("log entry %d: %w", l.Index, err)
			}
		case raft.LogConfiguration:
			voters = raft.DecodeConfiguration(l.Data)
		}
		r.last.Index, r.last.Term = l.Index, l.Term
	}
	if !c.view().Founded() {
		return fmt.Errorf("%s has no log yet: there is nothing to go on with; recover on a node that has run", c.name)
	}
	r.last.Generation = c.view().Cluster.Generation
	for _, s := range voters.Servers {
		if s.Suffrage == raft.Voter {
			r.Voters = append(r.Voters, string(s.ID))
		}
	}
	slices.Sort(r.Voters)
	term, err := c.store.GetUint64([]byte("CurrentTerm"))
	if err != nil && err.Error() != errStoreKey.Error() {
		return err
	}
	r.term = max(term, r.last.Term) + 1
	r.nextIndex = r.last.Index + 1
	return nil
}

// askWait bounds the wait for a node that may be gone.
const askWait = 3 * time.Second

// askAgain is between two questions for the log of one that answers.
const askAgain = 50 * time.Millisecond

// Ask asks all other nodes of the old cluster whether they live, by name.
func (r *Recovery) Ask(ctx context.Context) []Peer {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var peers []Peer
	for _, n := range r.View().Nodes {
		if n.Name != r.Name {
			peers = append(peers, Peer{Name: n.Name, Addr: n.Advertise, Role: n.Role, Voter: slices.Contains(r.Voters, n.Name)})
		}
	}
	var wg sync.WaitGroup
	for i := range peers {
		wg.Go(func() { r.ask(ctx, &peers[i]) })
	}
	wg.Wait()
	return peers
}

func (r *Recovery) ask(ctx context.Context, p *Peer) {
	conn, err := r.c.dial(ctx, p.Name, ALPNForward)
	if err != nil {
		return
	}
	conn.Close()
	p.Answers = true // it has proved to be that node
	for {
		b, err := r.c.askOnce(ctx, p.Name, frameLog, nil)
		var refused *net.OpError
		var end logEnd
		switch {
		case errors.As(err, &refused) && refused.Op == "remote error":
			p.Ahead = true // it does not talk to us any more: it has gone on without us
			return
		case err == nil && json.Unmarshal(b, &end) == nil:
			p.Newer, p.Ahead = end.newer(r.last), end.Generation > r.last.Generation
			return
		}
		select { // it begins or ends just now, or is of another version: what it has may matter, so it is asked again
		case <-time.After(askAgain):
		case <-ctx.Done():
			return
		}
	}
}

// Check says why the cluster must not be recovered with the nodes in keep (this one is among them). Nodes that answer and that the
// operator names in force do not stand against it.
func (r *Recovery) Check(peers []Peer, keep, force []string) error {
	alive := 0
	if slices.Contains(r.Voters, r.Name) {
		alive++
	}
	var against, stray []string
	newer := ""
	for _, p := range peers {
		if !p.Answers {
			continue
		}
		if p.Voter {
			alive++
		}
		kept, forced := slices.Contains(keep, p.Name), slices.Contains(force, p.Name)
		switch {
		case p.Ahead:
			return fmt.Errorf("%w: %s answers, and the cluster was recovered there already: this node joins that one", ErrNotNewest, p.Name)
		case p.Newer && !forced:
			newer = p.Name
		case !kept && !forced:
			stray = append(stray, p.Name)
		}
		if !forced {
			against = append(against, p.Name)
		}
	}
	needed := len(r.Voters)/2 + 1
	switch {
	case len(r.Voters) == 1 && r.Voters[0] == r.Name:
		return fmt.Errorf("%w: this node alone votes, and needs nobody", ErrNotLost)
	case alive >= needed && len(against) > 0:
		return fmt.Errorf("%w: %s, so %d of %d voters live when this node runs, and %d are needed", ErrNotLost, whoAnswers(against), alive, len(r.Voters), needed)
	case newer != "":
		return fmt.Errorf("%w: the log of %s goes on where this node's ends: recover on %s, with this node to keep or to join it later",
			ErrNotNewest, newer, newer)
	case len(stray) > 0:
		return fmt.Errorf("%w: %s, and would be left behind", ErrNotLost, whoAnswers(stray))
	}
	return nil
}

func whoAnswers(names []string) string {
	if len(names) == 1 {
		return names[0] + " answers"
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + " answer"
}

// Recover makes the nodes in keep the whole cluster, with this one as the only voter until the others have caught up. Up to the
// moment when the snapshot that it writes gets its name nothing has changed; from then on all has. above is a generation that was seen
// elsewhere.
func (r *Recovery) Recover(keep []string, above uint64) error {
	c := r.c
	if !slices.Contains(keep, r.Name) {
		return fmt.Errorf("recover without %s itself: it is the one that goes on", r.Name)
	}
	cmd := state.Encode(state.Recover{Keep: keep, Above: above, Gossip: randomKey(), Heartbeat: randomKey()})
	b, _ := c.opt.Machine.Apply(r.nextIndex, cmd).([]byte)
	result, err := state.DecodeResult(b)
	if err == nil {
		err = result.Err()
	}
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := c.store.SetUint64([]byte("CurrentTerm"), r.term); err != nil {
		return err
	}
	if err := c.disk.refused(); err != nil {
		return err
	}
	self, _ := c.view().Node(r.Name)
	addr := self.Advertise
	if c.opt.Advertise.IsValid() {
		addr = c.opt.Advertise // node.hcl may say another since it ran
	}
	voters := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(r.Name), Address: raft.ServerAddress(addr.String())}}}
	if err := r.write(voters); err != nil {
		return fmt.Errorf("write the new beginning of the log: %w", err)
	}
	// What follows repeats itself at the next start, should it be interrupted: the snapshot is newer than all of it.
	if first, last, _ := c.store.extent(); last != 0 {
		return c.store.DeleteRange(first, last)
	}
	return nil
}

// write makes the state the snapshot that everything goes on from.
func (r *Recovery) write(voters raft.Configuration) error {
	_, form := raft.NewInmemTransport("") // for the form in which a snapshot names voters
	defer form.Close()
	sink, err := r.c.snaps.Create(1, r.nextIndex, r.term, voters, r.nextIndex, form)
	if err != nil {
		return err
	}
	s, err := r.c.opt.Machine.Snapshot()
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	defer s.Release()
	hurry := make(chan struct{})
	close(hurry)
	if err := (fsmSnapshot{s, r.nextIndex, r.c.dir, hurry}).Persist(sink); err != nil {
		return err
	}
	return readSnapshot(r.c.snaps, sink.ID())
}
