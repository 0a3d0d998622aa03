package cluster

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// lone is a raft whose peers, b and c, the test plays. It talks to them over this package's transport.
type lone struct {
	t       *testing.T
	raft    *raft.Raft
	store   *slowStore
	applied chan string
	b, c    *raft.NetworkTransport
	mute    atomic.Bool // b and c refuse entries
	over    chan struct{}

	mu    sync.Mutex
	conns []net.Conn
}

// slowStore is a log that writes when it is let.
type slowStore struct {
	*raft.InmemStore
	gate    chan struct{} // nil: at once
	waiting chan struct{}
}

func (s *slowStore) StoreLogs(logs []*raft.Log) error {
	if s.gate != nil {
		s.waiting <- struct{}{}
		<-s.gate
	}
	return s.InmemStore.StoreLogs(logs)
}

func (s *slowStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (l *lone) Apply(e *raft.Log) any               { l.applied <- string(e.Data); return nil }
func (l *lone) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (l *lone) Restore(io.ReadCloser) error         { return nil }

func newLone(t *testing.T) *lone {
	l := &lone{
		t: t, store: &slowStore{InmemStore: raft.NewInmemStore(), waiting: make(chan struct{}, 1)},
		applied: make(chan string, 16), over: make(chan struct{}),
	}
	queues := map[string]*queue{}
	for i, name := range []string{"a", "b", "c"} {
		queues[name] = newQueue(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}), 7940))
	}
	dial := func(ctx context.Context, node string) (net.Conn, error) {
		near, far := net.Pipe()
		l.mu.Lock()
		l.conns = append(l.conns, near, far)
		l.mu.Unlock()
		go queues[node].put(far)
		return near, nil
	}
	streamOf := func(name string) stream { return stream{queues[name], dial, &wires{}} }
	tr := newTransport(streamOf("a"), &disk{}, hclog.NewNullLogger(), func(*raft.RequestVoteRequest) {})
	l.b, l.c = l.peer(streamOf("b")), l.peer(streamOf("c"))
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "a", hclog.NewNullLogger()
	var all raft.Configuration
	for name, q := range queues {
		all.Servers = append(all.Servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(q.addr.String())})
	}
	snaps := raft.NewInmemSnapshotStore()
	if err := raft.BootstrapCluster(conf, l.store, l.store, snaps, tr, all); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(conf, l, l.store, l.store, snaps, tr)
	if err != nil {
		t.Fatal(err)
	}
	l.raft = r
	tr.raft.Store(r)
	t.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
		tr.Close()
		l.b.Close()
		l.c.Close()
		close(l.over)
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range l.conns {
			c.Close()
		}
	})
	return l
}

// peer is a voter that agrees with everything, until mute.
func (l *lone) peer(s stream) *raft.NetworkTransport {
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: byName{}, Stream: s, MaxPool: 1, Timeout: rpcTimeout, Logger: hclog.NewNullLogger(),
	})
	head := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	go func() {
		for {
			select {
			case rpc := <-tr.Consumer():
				switch q := rpc.Command.(type) {
				case *raft.RequestPreVoteRequest:
					rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: head, Term: q.Term, Granted: true}, nil)
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{RPCHeader: head, Term: q.Term, Granted: true}, nil)
				case *raft.AppendEntriesRequest:
					if l.mute.Load() {
						rpc.Respond(nil, io.EOF)
						continue
					}
					rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: head, Term: q.Term, LastLog: 1 << 30, Success: true}, nil)
				}
			case <-l.over:
				return
			}
		}
	}()
	return tr
}

// says is a message of b, as the leader of that term.
func (l *lone) says(req raft.AppendEntriesRequest) raft.AppendEntriesResponse {
	l.t.Helper()
	req.RPCHeader = raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("b"), Addr: []byte("b")}
	var resp raft.AppendEntriesResponse
	if err := l.b.AppendEntries("a", "", &req, &resp); err != nil {
		l.t.Error(err)
	}
	return resp
}

// A leader that hears of its successor by a heartbeat must not write what is proposed to it then into its log in the successor's term: it
// would take it for the successor's own entry at that place, and apply it.
func TestADeposedLeaderWritesNothingInTheNextTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		for l.raft.State() != raft.Leader {
			time.Sleep(time.Millisecond)
		}
		if err := l.raft.Apply([]byte("before"), 0).Error(); err != nil {
			t.Fatal(err)
		}
		<-l.applied

		l.mute.Store(true)
		term, last := l.raft.CurrentTerm(), l.raft.LastIndex()
		l.says(raft.AppendEntriesRequest{Term: term + 1})
		ours := l.raft.Apply([]byte("ours"), time.Second)
		if err := ours.Error(); err == nil {
			t.Errorf("a proposal was committed by a leader that is none")
		}
		theirs := []*raft.Log{{Index: last + 1, Term: term + 1, Type: raft.LogCommand, Data: []byte("theirs")}}
		l.says(raft.AppendEntriesRequest{Term: term + 1, PrevLogEntry: last, PrevLogTerm: term, Entries: theirs, LeaderCommitIndex: last + 1})
		if got := <-l.applied; got != "theirs" {
			t.Errorf("applied %q, which its successor has never heard of", got)
		}
	})
}

// A follower that waits for its disk answers its leader's heartbeats, or the leader would step down; those of another term, which would
// change what it is, it does not answer before.
func TestAFollowerAnswersHeartbeatsWhileItWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t)
		const term = 7
		l.says(raft.AppendEntriesRequest{Term: term})
		last := l.raft.LastIndex()
		var lastLog raft.Log
		if err := l.store.GetLog(last, &lastLog); err != nil {
			t.Fatal(err)
		}
		l.store.gate = make(chan struct{})
		written := make(chan struct{})
		go func() {
			defer close(written)
			l.says(raft.AppendEntriesRequest{Term: term, PrevLogEntry: last, PrevLogTerm: lastLog.Term, Entries: []*raft.Log{{Index: last + 1, Term: term}}})
		}()
		<-l.store.waiting
		for range 20 {
			if resp := l.says(raft.AppendEntriesRequest{Term: term}); !resp.Success || resp.Term != term {
				t.Errorf("a heartbeat was answered by %+v", resp)
			}
			time.Sleep(100 * time.Millisecond)
		}
		var newer atomic.Bool
		go func() {
			l.says(raft.AppendEntriesRequest{Term: term + 1})
			newer.Store(true)
		}()
		synctest.Wait()
		if newer.Load() {
			t.Error("a heartbeat of the next term was answered behind raft's back")
		}
		close(l.store.gate)
		<-written
		time.Sleep(10 * time.Millisecond)
		if s, now := l.raft.State(), l.raft.CurrentTerm(); s != raft.Follower || now != term+1 || !newer.Load() {
			t.Errorf("after the write it is a %v in term %d, want a follower in %d", s, now, term+1)
		}
	})
}
