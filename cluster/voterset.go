package cluster

import (
	"slices"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/internal/watch"
)

// VoterSet is who votes: Raft's newest configuration on this node, whether committed yet or not, since that is the one that Raft itself
// goes by. Index is that of the newest committed one. Immutable.
type VoterSet struct {
	Names []string // sorted
	Index uint64
}

// Has reports whether the node votes.
func (v VoterSet) Has(name string) bool {
	_, ok := slices.BinarySearch(v.Names, name)
	return ok
}

// Voters tells who votes. Empty before Run has read the log.
func (c *Cluster) Voters() *watch.Value[VoterSet] { return &c.voterSet }

func (c *Cluster) publishVoters() {
	now := VoterSet{Index: c.fsm.voters.Load()} // before the names: it must never be newer than they are
	f := c.raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			now.Names = append(now.Names, string(s.ID))
		}
	}
	slices.Sort(now.Names)
	if old := c.voterSet.Get(); old.Index != now.Index || !slices.Equal(old.Names, now.Names) {
		c.voterSet.Set(now)
	}
}
