package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
)

// fsm drives the Machine for raft, and before raft runs: a node that starts shows at once what it knows to be agreed on, without
// waiting for a quorum. For that it restores the newest snapshot and replays the log as far as it is known to be committed, and then
// skips what raft brings a second time. (Raft 1.8.0 has an option for this, RestoreCommittedLogs. It forgets the voters that stand in
// the entries that it replays, and its queue holds only so many.)
//
// A snapshot on disk is the index of its last command, 8 bytes, and then the machine's.
type fsm struct {
	m       Machine
	store   *store
	snaps   raft.SnapshotStore
	dir     string          // of the snapshots too
	hurry   <-chan struct{} // closed: the node stops
	applied atomic.Uint64   // the last command that the machine has carried out

	voters atomic.Uint64 // index of the newest set of voters that is committed; raft's GetConfiguration tells none (1.8.0: always 0)
	voted  func()        // hears of every such set; must not block

	outdated *watch.Value[error] // not nil: nothing more is applied

	committed func(index, term uint64) // hears of every command that raft brings; must not block

	// Of raft's goroutine that applies.
	replayed uint64 // commands up to here were applied before raft ran
	fed      uint64 // the last command that raft has brought
}

var errAhead = errors.New("what was replayed at the start is not all confirmed yet")

// replay brings the machine to what is known to be agreed on. It runs before raft does.
func (f *fsm) replay(snaps raft.SnapshotStore) error {
	metas, err := snaps.List()
	if err != nil {
		return err
	}
	var from uint64
	if len(metas) > 0 {
		_, r, err := snaps.Open(metas[0].ID)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", metas[0].ID, err)
		}
		if err := f.Restore(r); errors.Is(err, state.ErrTooNew) {
			return nil // Outdated says it
		} else if err != nil {
			return fmt.Errorf("snapshot %s: %w", metas[0].ID, err)
		}
		from = metas[0].Index
	}
	to, err := f.store.commitIndex()
	if err != nil {
		return err
	}
	for i := from + 1; i <= to; i++ {
		var l raft.Log
		if err := f.store.GetLog(i, &l); err != nil {
			return fmt.Errorf("log entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			if _, stopped := f.carryOut(&l).(error); stopped {
				return nil
			}
			f.replayed = l.Index
			f.applied.Store(l.Index)
		}
	}
	return nil
}

func (f *fsm) Apply(l *raft.Log) any {
	f.fed = l.Index
	if l.Index <= f.replayed {
		return nil // nobody waits for it: it was committed before this process began
	}
	result := f.carryOut(l)
	if _, stopped := result.(error); stopped {
		return result
	}
	f.applied.Store(l.Index)
	f.store.stageCommit(l.Index)
	f.committed(l.Index, l.Term)
	return result
}

// carryOut has the machine apply a command, unless it has met one that it does not understand: to go on behind that one would make it
// another state than the other nodes'.
func (f *fsm) carryOut(l *raft.Log) any {
	if err := f.outdated.Get(); err != nil {
		return err
	}
	result := f.m.Apply(l.Index, l.Data)
	if err, stopped := result.(error); stopped {
		err = fmt.Errorf("log entry %d: %w", l.Index, err)
		f.outdated.Set(err)
		return err
	}
	return result
}

// StoreConfiguration hears of every committed set of voters.
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) {
	f.voters.Store(max(f.voters.Load(), index))
	f.voted()
}

// Restore restores the newest snapshot, from this node or from the leader.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if metas, err := f.snaps.List(); err == nil && len(metas) > 0 {
		f.voters.Store(max(f.voters.Load(), metas[0].ConfigurationIndex))
	}
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if err := f.m.Restore(r); err != nil {
		if errors.Is(err, state.ErrTooNew) {
			f.outdated.Set(err)
		}
		return err
	}
	f.replayed = 0
	f.applied.Store(binary.BigEndian.Uint64(head[:]))
	return nil
}

// Snapshot refuses while the machine is ahead of what raft has brought: raft would label the snapshot with too low an index, and
// commands would be applied twice after it.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.outdated.Get(); err != nil {
		return nil, err
	}
	if f.fed < f.replayed {
		return nil, errAhead
	}
	s, err := f.m.Snapshot()
	if err != nil {
		return nil, err
	}
	return fsmSnapshot{s, f.applied.Load(), f.dir, f.hurry}, nil
}
