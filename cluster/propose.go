package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/state"
)

// How a proposal can end without an answer of the machine. Unless it is ErrUnknownOutcome, nothing happened and trying again is safe.
var (
	ErrNoLeader       = errors.New("the cluster has no leader at the moment")
	ErrNoQuorum       = errors.New("the cluster has no quorum: fewer than half of its voters can be reached")
	ErrUnknownOutcome = errors.New("the connection was lost before the answer came: the change may or may not have been made")
	ErrTooLarge       = errors.New("the command is too large")
	ErrClosed         = errors.New("the node is shutting down")

	// ErrUnknownQuestion is the answer of a node that is asked what only a newer version can answer.
	ErrUnknownQuestion = errors.New("the node that was asked runs a version that does not know this question: upgrade it")
)

const (
	// maxCommand bounds one entry of the log: the largest configuration (4 MiB) as JSON with base64.
	maxCommand = 6 << 20
	// leaderWait is how long a proposal waits for a leader: an election that went wrong twice.
	leaderWait = 5 * time.Second
	// applyWait bounds the wait in front of raft's queue.
	applyWait = 5 * time.Second
	// dialWait bounds the way to a leader, which is on the local network and needs two round trips.
	dialWait = time.Second
	// answerWait bounds the wait for a leader's answer: in front of its queue, then an election lost meanwhile.
	answerWait = 2 * applyWait
	// maxForwards bounds the proposals that one peer has under way here.
	maxForwards = 128
)

// answer is what came of a command: the machine's result and the index of the log entry.
type answer struct {
	result []byte
	index  uint64
}

// Propose hands cmd to the leader, wherever it is, and returns the machine's result and the index of the log entry once the entry is
// committed and applied there (AppliedIndex says how far this node is). It waits for a leader for some seconds.
func (c *Cluster) Propose(ctx context.Context, cmd []byte) (result []byte, index uint64, err error) {
	if len(cmd) > maxCommand {
		return nil, 0, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, len(cmd), maxCommand)
	}
	if err := c.allows(cmd); err != nil {
		return nil, 0, err // here already: an older leader may not know the rule
	}
	b, err := c.ask(ctx, framePropose, cmd)
	if err != nil {
		return nil, 0, err
	}
	if len(b) < 8 {
		return nil, 0, fmt.Errorf("answer of the leader: %w", errFrame)
	}
	return b[8:], binary.BigEndian.Uint64(b), nil
}

// ask puts a question to the leader: to this node itself or over the wire. It follows the leadership until the question has been
// answered, and never asks twice what may have been done already.
func (c *Cluster) ask(ctx context.Context, kind byte, body []byte) ([]byte, error) {
	wait, cancel := context.WithTimeoutCause(ctx, leaderWait, ErrNoLeader)
	defer cancel()
	var last error
	for {
		l, next := c.leadership.Watch()
		var err error
		switch {
		case c.closing():
			return nil, ErrClosed
		case c.superseded.Load() != nil:
			return nil, c.superseded.Load()
		case l.Self:
			var b []byte
			if b, err = c.serve(ctx, peer{name: c.name}, kind, body); err == nil {
				return b, nil
			}
		case c.withdrawn() != nil:
			return nil, c.withdrawn()
		case l.Leader != "":
			var b []byte
			if b, err = c.links.ask(ctx, l.Leader, kind, body); err == nil {
				return b, nil
			}
		default:
			err = ErrNoLeader
		}
		if !errors.Is(err, ErrNoLeader) {
			return nil, err
		}
		last = err
		// Nothing was done. A little later, or as soon as the leadership changes, there may be a leader again.
		retry := time.NewTimer(100 * time.Millisecond)
		select {
		case <-next:
			retry.Stop()
		case <-retry.C:
		case <-c.stopping:
			retry.Stop()
			return nil, ErrClosed
		case <-wait.Done():
			retry.Stop()
			if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return nil, context.Cause(ctx)
			}
			if err := c.withdrawn(); err != nil {
				return nil, err
			}
			return nil, c.leaderless(last)
		}
	}
}

// leaderless tells a missing quorum from a missing leader, as far as gossip knows.
func (c *Cluster) leaderless(err error) error {
	voters, alive := 0, 0
	for _, m := range c.members.Get() {
		if m.Voter {
			voters++
			if m.Alive {
				alive++
			}
		}
	}
	if voters > 0 && alive <= voters/2 {
		return fmt.Errorf("%w: %d of %d voters are alive", ErrNoQuorum, alive, voters)
	}
	return err
}

// askOnce puts a question to one node over a connection of its own.
func (c *Cluster) askOnce(ctx context.Context, node string, kind byte, body []byte) ([]byte, error) {
	conn, err := c.dial(ctx, node, ALPNForward)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(appendFrame(nil, frame{kind: kind, body: body})); err != nil {
		return nil, err
	}
	f, err := readFrame(conn, maxFrame)
	switch {
	case err != nil:
		return nil, err
	case f.kind == frameOK:
		return f.body, nil
	case f.kind == frameRefused:
		return nil, decodeRefusal(f.body)
	}
	return nil, errFrame
}

// serve answers a question on the leader. ErrNoLeader means that this node is not (or no longer) it, and that nothing was done.
func (c *Cluster) serve(ctx context.Context, from peer, kind byte, body []byte) ([]byte, error) {
	switch kind {
	case framePropose:
		a, err := c.apply(ctx, body)
		if err != nil {
			return nil, err
		}
		return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(a.result)), a.index), a.result...), nil
	case frameJoin:
		return c.admit(ctx, body)
	case frameRenew:
		return c.renewFor(from, body)
	case frameRelay:
		return c.ask(ctx, framePropose, body)
	case frameIndex:
		return binary.BigEndian.AppendUint64(nil, c.AppliedIndex()), nil
	case frameLog:
		e, err := c.logEnd()
		if err != nil {
			return nil, err
		}
		return json.Marshal(e)
	}
	return nil, fmt.Errorf("%w (kind %d, asked of %s)", ErrUnknownQuestion, kind, c.name)
}

// apply puts a command into the log. It only works on the leader.
func (c *Cluster) apply(ctx context.Context, cmd []byte) (answer, error) {
	if err := c.withdrawn(); err != nil {
		return answer{}, err
	}
	if len(cmd) > maxCommand {
		return answer{}, ErrTooLarge
	}
	if err := c.allows(cmd); err != nil {
		return answer{}, err
	}
	if !c.asked.begin() {
		return answer{}, ErrClosed
	}
	f := c.raft.Apply(cmd, applyWait)
	done := make(chan error, 1)
	go func() { defer c.asked.end(); done <- f.Error() }() // raft decides, or steps down for want of a quorum (500 ms)
	select {
	case err := <-done:
		switch {
		case err == nil:
			return applied(f)
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
			return answer{}, ErrNoLeader
		case errors.Is(err, ErrDisk):
			return answer{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		return answer{}, fmt.Errorf("%w (%w)", ErrUnknownOutcome, err)
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%w (%w)", ErrUnknownOutcome, context.Cause(ctx))
	case <-c.ended:
		return answer{}, fmt.Errorf("%w (%w)", ErrUnknownOutcome, ErrClosed)
	}
}

// Codes of frameRefused. Numbers are on the wire.
const (
	codeOther byte = iota
	codeNoLeader
	codeUnknown
	codeDisk
	codeJoin
	codeTooLarge
	codeTooEarly
	codeTooNew
	codeUnknownQuestion
)

var codes = map[byte]error{
	codeNoLeader: ErrNoLeader, codeUnknown: ErrUnknownOutcome, codeDisk: ErrDisk, codeJoin: ErrJoinRefused, codeTooLarge: ErrTooLarge,
	codeTooEarly: state.ErrTooEarly, codeTooNew: state.ErrTooNew,
	codeUnknownQuestion: ErrUnknownQuestion,
}

func encodeRefusal(err error) []byte {
	code := codeOther
	for _, c := range []byte{codeUnknown, codeNoLeader, codeDisk, codeJoin, codeTooLarge, codeTooEarly, codeTooNew, codeUnknownQuestion} {
		if errors.Is(err, codes[c]) {
			code = c
			break
		}
	}
	return append([]byte{code}, err.Error()...)
}

// refusal is an error that came over the wire: the text of the node that said it, and its code for errors.Is.
type refusal struct {
	text string
	is   error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.is }

func decodeRefusal(b []byte) error {
	if len(b) == 0 {
		return errFrame
	}
	return &refusal{text: string(b[1:]), is: codes[b[0]]}
}

// serveForward answers a peer's questions until the connection ends. Each runs by itself: one slow answer holds up no other.
func (c *Cluster) serveForward(conn *tls.Conn, p peer) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(io.ErrUnexpectedEOF)

	var mu sync.Mutex // one writer at a time
	slots := make(chan struct{}, maxForwards)
	r := bufio.NewReader(conn)
	for {
		f, err := readFrame(r, maxFrame)
		if err != nil {
			return
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			b, err := c.serve(ctx, p, f.kind, f.body)
			reply := frame{kind: frameOK, id: f.id, body: b}
			if err != nil {
				reply = frame{kind: frameRefused, id: f.id, body: encodeRefusal(err)}
			}
			buf := appendFrame(nil, reply)
			mu.Lock()
			defer mu.Unlock()
			conn.SetWriteDeadline(time.Now().Add(handshakeTime))
			if _, err := conn.Write(buf); err != nil {
				conn.Close()
			}
		})
	}
}

// links holds the connection over which this node asks the leader. There is one: questions carry an id, and a new leader makes
// a new link.
type links struct {
	// Immutable.
	dial func(ctx context.Context, node, alpn string) (net.Conn, error)
	ctx  context.Context // of dials, ended by stop
	stop context.CancelFunc

	mu sync.Mutex
	// mu guards the following. It is not held while a dial is under way: a dead leader costs each question its own time, and the
	// news of the next leader none.
	node    string
	link    *link
	dialing *dialing // the newest; nil: none
	wg      sync.WaitGroup
	closed  bool
}

// dialing is one attempt at a link; all who ask meanwhile wait for the same.
type dialing struct {
	node string
	done chan struct{}

	// Set before done is closed.
	link *link
	err  error
}

// link is one connection with questions under way.
type link struct {
	conn net.Conn

	wmu sync.Mutex // one writer at a time

	mu sync.Mutex
	// mu guards the following.
	next    uint64
	pending map[uint64]chan frame // closed without a frame: the connection is gone
	err     error
}

// get returns a link to node, and opens one if need be.
func (l *links) get(ctx context.Context, node string) (*link, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	if l.link != nil && l.node == node && l.link.alive() {
		defer l.mu.Unlock()
		return l.link, nil
	}
	d := l.dialing
	if d == nil || d.node != node {
		d = &dialing{node: node, done: make(chan struct{})}
		l.dialing = d
		l.wg.Go(func() { l.open(d) })
	}
	l.mu.Unlock()
	select {
	case <-d.done:
		return d.link, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// open makes the one attempt. Who asks for another node meanwhile makes it void.
func (l *links) open(d *dialing) {
	defer close(d.done)
	ctx, cancel := context.WithTimeout(l.ctx, dialWait)
	defer cancel()
	conn, err := l.dial(ctx, d.node, ALPNForward)
	l.mu.Lock()
	defer l.mu.Unlock()
	current := l.dialing == d
	if current {
		l.dialing = nil
	}
	switch {
	case err != nil:
		d.err = err
		return
	case l.closed:
		d.err = ErrClosed
	case !current:
		d.err = errors.New("another node leads")
	}
	if d.err != nil {
		conn.Close()
		return
	}
	if l.link != nil {
		l.link.conn.Close()
	}
	d.link = &link{conn: conn, pending: map[uint64]chan frame{}}
	l.node, l.link = d.node, d.link
	l.wg.Go(d.link.read)
}

// follow drops the link to a former leader a moment after there is a new one: its late answers still count, but nobody waits for
// one that died.
func (l *links) follow(leader string) {
	if leader == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.link; k != nil && l.node != leader {
		time.AfterFunc(200*time.Millisecond, func() { k.conn.Close() })
	}
}

func (l *links) close() {
	l.mu.Lock()
	l.closed = true
	l.stop()
	if l.link != nil {
		l.link.conn.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// ask puts one question to node. ErrNoLeader: nothing was done.
func (l *links) ask(ctx context.Context, node string, kind byte, body []byte) ([]byte, error) {
	k, err := l.get(ctx, node)
	if err != nil {
		if errors.Is(err, ErrClosed) {
			return nil, err
		}
		return nil, fmt.Errorf("%w (the last one, %s, does not answer: %w)", ErrNoLeader, node, err)
	}
	ch := make(chan frame, 1)
	k.mu.Lock()
	if k.err != nil {
		k.mu.Unlock()
		return nil, fmt.Errorf("%w (connection to %s: %w)", ErrNoLeader, node, k.err)
	}
	k.next++
	id := k.next
	k.pending[id] = ch
	k.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	k.wmu.Lock()
	k.conn.SetWriteDeadline(time.Now().Add(rpcTimeout))
	_, err = k.conn.Write(appendFrame(nil, frame{kind: kind, id: id, body: body}))
	k.wmu.Unlock()
	if err != nil {
		k.conn.Close() // a part of it may have left; what was read of it decides nothing without the rest, but a full one might
	}
	select {
	case f, ok := <-ch:
		switch {
		case !ok:
			return nil, fmt.Errorf("%w (leader %s)", ErrUnknownOutcome, node)
		case f.kind == frameOK:
			return f.body, nil
		case f.kind == frameRefused:
			return nil, decodeRefusal(f.body)
		}
		return nil, errFrame
	case <-ctx.Done():
		k.mu.Lock()
		delete(k.pending, id)
		k.mu.Unlock()
		return nil, fmt.Errorf("%w (leader %s: %w)", ErrUnknownOutcome, node, context.Cause(ctx))
	}
}

func (k *link) alive() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err == nil
}

// read hands out answers until the connection ends.
func (k *link) read() {
	r := bufio.NewReader(k.conn)
	for {
		f, err := readFrame(r, maxFrame)
		k.mu.Lock()
		if err != nil {
			k.err = err
			for _, ch := range k.pending {
				close(ch)
			}
			k.pending = nil
			k.mu.Unlock()
			k.conn.Close()
			return
		}
		ch := k.pending[f.id]
		delete(k.pending, f.id)
		k.mu.Unlock()
		if ch != nil {
			ch <- f
		}
	}
}
