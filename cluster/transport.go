package cluster

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// rpcTimeout bounds one exchange between two rafts, dialing included; a snapshot gets more by its size. It is no detector.
const rpcTimeout = 3 * time.Second

// dialTimeout bounds the opening of one connection. The kernel asks a silent host again after 1 and 3 s; to begin anew finds one that
// has come back sooner.
const dialTimeout = time.Second

// stream is raft's view of the one port. Raft's addresses are only hints: a connection goes to the node of that name, wherever the
// replicated state says it is, and the certificate at the other end must name it.
type stream struct {
	*queue
	dial  func(ctx context.Context, node string) (net.Conn, error)
	wires *wires
}

func (s stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), min(timeout, dialTimeout))
	defer cancel()
	c, err := s.dial(ctx, string(address))
	if err != nil {
		return nil, err
	}
	return s.wires.add(string(address), c), nil
}

// byName makes raft dial names.
type byName struct{}

func (byName) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	return raft.ServerAddress(id), nil
}

// transport is raft's network transport with four things added: heartbeats that change nothing behind raft's back (heartbeat), a
// TimeoutNow that comes from this node itself (elect), exchanges that are begun again when a pooled connection turns out to be dead, and
// silence once the disk has failed.
type transport struct {
	*raft.NetworkTransport
	rpcs  chan raft.RPC
	beats chan raft.RPC // capacity 1: heartbeats that were answered, and that raft has not heard yet
	disk  *disk
	wires *wires
	log   hclog.Logger
	voted func(*raft.RequestVoteRequest) // hears of every request for this node's vote; must not block
	raft  atomic.Pointer[raft.Raft]      // nil until it runs
	stop  chan struct{}
	done  chan struct{}
}

func newTransport(s stream, d *disk, log hclog.Logger, voted func(*raft.RequestVoteRequest)) *transport {
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			ServerAddressProvider:   byName{},
			Stream:                  s,
			MaxPool:                 poolMost,
			Timeout:                 rpcTimeout,
			Logger:                  log,
			MsgpackUseNewTimeFormat: true,
		}),
		rpcs:  make(chan raft.RPC),
		beats: make(chan raft.RPC, 1),
		disk:  d,
		wires: s.wires,
		log:   log,
		voted: voted,
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	t.NetworkTransport.SetHeartbeatHandler(t.heartbeat)
	go t.pass()
	return t
}

// pass moves what arrives to raft, until close.
func (t *transport) pass() {
	defer close(t.done)
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if v, ok := rpc.Command.(*raft.RequestPreVoteRequest); ok && v.Term == 0 && t.disk.refused() == nil {
				rpc.Respond(&raft.RequestPreVoteResponse{RPCHeader: v.RPCHeader}, nil) // see greet
				continue
			}
			if v, ok := rpc.Command.(*raft.RequestVoteRequest); ok && t.disk.refused() == nil {
				t.voted(v)
			}
			t.hand(rpc)
		case beat := <-t.beats:
			t.hand(beat)
		case <-t.stop:
			return
		}
	}
}

// hand gives raft's main goroutine a request, as soon as it takes one.
func (t *transport) hand(rpc raft.RPC) {
	if err := t.disk.refused(); err != nil {
		rpc.Respond(nil, err)
		return
	}
	select {
	case t.rpcs <- rpc:
	case <-t.stop:
		rpc.Respond(nil, raft.ErrRaftShutdown)
	}
}

// SetHeartbeatHandler keeps raft's own handler out, see heartbeat.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// heartbeat takes a heartbeat on the goroutine of its connection. A follower that writes to a slow disk, or restores a snapshot, still
// is one, and its leader must hear so, or it steps down after half a second: what such a follower answers is known without raft's main
// goroutine, which hears of the heartbeat when it has time. (It has not timed out meanwhile: what keeps it is an exchange with the
// leader, at whose end it counts as heard.) Everything else waits for that goroutine.
//
// Raft's own handler works on the heartbeat here and now, and changes state and term behind the back of the main goroutine (1.8.0, issue
// 695): a leader that is deposed by a heartbeat, and whose next event is a proposal, writes it into its log in the term of its successor,
// whose entry at that place it then takes for the same. Seen: a cluster in which one node lacked a placement for good.
func (t *transport) heartbeat(rpc raft.RPC) {
	beat, ok := rpc.Command.(*raft.AppendEntriesRequest)
	r := t.raft.Load()
	if !ok || r == nil || r.State() != raft.Follower || r.CurrentTerm() != beat.Term || t.disk.refused() != nil {
		t.hand(rpc)
		return
	}
	rpc.Respond(&raft.AppendEntriesResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: beat.Term, LastLog: r.LastIndex(), Success: true,
	}, nil)
	select {
	case t.beats <- raft.RPC{Command: beat, RespChan: make(chan raft.RPCResponse, 1)}:
	default: // one is waiting, and says the same
	}
}

func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

func (t *transport) Close() error {
	select {
	case <-t.stop:
		return nil
	default:
	}
	close(t.stop)
	err := t.NetworkTransport.Close()
	<-t.done
	return err
}

// elect makes raft start an election now, as if the leader had asked for it: without a pre-vote, and with the other voters allowed
// to vote although they may still believe in the leader. The log and the votes decide as always.
//
// A candidate already would not hear of it, and go on waiting for votes: two that stood at the same time, because the first one's
// disk was slow and the second one's turn had come, split them and then cost 1 to 2 s, raft's election timeout. So it is made a
// follower before.
func (t *transport) elect(ctx context.Context) error {
	if r := t.raft.Load(); r != nil && r.State() == raft.Candidate {
		if follows, err := t.yield(ctx, r.CurrentTerm()+1); err != nil || !follows {
			return err
		}
	}
	_, err := t.self(ctx, &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}})
	return err
}

// yield makes a candidate a follower in a higher term, by a vote request that nobody sent and that cannot be granted, because its log is
// empty. When the election has been decided meanwhile, raft refuses it for that reason, and yield reports false.
func (t *transport) yield(ctx context.Context, term uint64) (bool, error) {
	nobody := []byte("-")
	resp, err := t.self(ctx, &raft.RequestVoteRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: nobody}, Term: term,
	})
	if err != nil {
		return false, err
	}
	vote, ok := resp.(*raft.RequestVoteResponse)
	return ok && vote.Term == term, nil
}

// self has raft work on a request of this node's own.
func (t *transport) self(ctx context.Context, command any) (any, error) {
	answer := make(chan raft.RPCResponse, 1)
	select {
	case t.rpcs <- raft.RPC{Command: command, RespChan: answer}:
	case <-t.stop:
		return nil, raft.ErrRaftShutdown
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case r := <-answer:
		return r.Response, r.Error
	case <-t.stop:
		return nil, raft.ErrRaftShutdown
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ask makes an exchange with a node over as many of the pooled connections as are dead, and then over a new one. A peer that restarted
// has closed its ends, which shows at once; others are silent. One lost vote of three costs an election timeout of 1-2 s.
func ask[T any](t *transport, id raft.ServerID, silence time.Duration, exchange func(*T) error, resp *T) error {
	return overtake(silence, exchange, resp, func(begun time.Time) {
		if n := t.wires.drop(string(id), begun); n > 0 {
			t.log.Warn("closed connections that were silent while a newer one answered", "peer", id, "closed", n)
		}
	})
}

func (t *transport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.disk.refused(); err != nil {
		return err
	}
	return ask(t, id, voteSilence, func(resp *raft.RequestVoteResponse) error {
		return t.NetworkTransport.RequestVote(id, addr, args, resp)
	}, resp)
}

func (t *transport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.disk.refused(); err != nil {
		return err
	}
	return ask(t, id, voteSilence, func(resp *raft.RequestPreVoteResponse) error {
		return t.NetworkTransport.RequestPreVote(id, addr, args, resp)
	}, resp)
}

// reachEvery is the pause between attempts to reach a follower that is down.
const reachEvery = 100 * time.Millisecond

// AppendEntries goes on trying while a follower cannot be reached and this node leads. Raft would answer each failure with a pause that
// doubles up to ten seconds, and a node that came back would stay behind for as long: its vote and its log are missing in the next
// fail-over. Entries may be sent twice. Heartbeats fail as they are: raft counts them. They find out which connections are dead, for
// entries as well: those wait for a disk, and their silence says nothing.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(args.Entries) == 0 && args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && args.LeaderCommitIndex == 0 { // a heartbeat
		return ask(t, id, beatSilence, func(resp *raft.AppendEntriesResponse) error {
			return t.NetworkTransport.AppendEntries(id, addr, args, resp)
		}, resp)
	}
	for {
		err := t.NetworkTransport.AppendEntries(id, addr, args, resp)
		if err == nil || errors.Is(err, raft.ErrTransportShutdown) || errors.Is(err, ErrUnknownNode) || !t.leads(args.Term) {
			return err
		}
		select {
		case <-time.After(reachEvery):
		case <-t.stop:
			return err
		}
	}
}

func (t *transport) leads(term uint64) bool {
	r := t.raft.Load()
	return r != nil && r.State() == raft.Leader && r.CurrentTerm() == term
}

// TimeoutNow asks a voter to stand at once, over a connection that has just answered: over one that is dead it would be waited for until the
// exchange times out, and nobody leads meanwhile. It is not said twice, as other requests are: the second would depose who has won by then.
func (t *transport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if err := t.greet(id, args.ID); err != nil {
		return err
	}
	return t.NetworkTransport.TimeoutNow(id, addr, args, resp)
}

// warm exchanges a greeting with a voter, so that a connection to it lies ready when a vote is needed: followers otherwise never
// talk to each other, and the handshake would come on top of a fail-over.
func (t *transport) warm(id raft.ServerID, self raft.ServerID) error {
	if err := t.disk.refused(); err != nil {
		return err
	}
	return t.greet(id, []byte(self))
}

// greet has a voter answer: a pre-vote for term 0, which pass takes. The connection is the one that raft uses next.
func (t *transport) greet(id raft.ServerID, self []byte) error {
	args := raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self}}
	var resp raft.RequestPreVoteResponse
	return ask(t, id, voteSilence, func(resp *raft.RequestPreVoteResponse) error {
		return t.NetworkTransport.RequestPreVote(id, "", &args, resp)
	}, &resp)
}
