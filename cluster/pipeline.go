package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline guards raft's pipeline against two faults of its two ends (raft 1.8.0, issue 612). When a follower refuses an
// entry or an exchange fails, raft stops taking answers, and may try to send once more before it notices: that waits for room, the
// pipeline waits for somebody to take its answer, and the follower gets no entry ever again while heartbeats keep it content; raft
// cannot be shut down either. And raft counts an exchange that failed as a sign of life, on which a leader's lease hangs.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, addr)
	if err != nil {
		return nil, err
	}
	return newPipeline(inner), nil
}

// pipeline passes on the answers of another one up to the first that is no success, and closes that one then, which ends every wait
// in it. A failed exchange is not passed on: raft hears of it when it sends the next.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	stop    chan struct{}
	once    sync.Once
}

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), stop: make(chan struct{})}
	go p.pass() // ends with Close or with the first answer that is no success
	return p
}

func (p *pipeline) pass() {
	for p.passOne() {
	}
	_ = p.AppendPipeline.Close() // raft's next send fails, and it closes us
}

// passOne passes one answer on and reports whether more may follow.
func (p *pipeline) passOne() bool {
	var f raft.AppendFuture
	select {
	case f = <-p.AppendPipeline.Consumer():
	case <-p.stop:
		return false
	}
	if f.Error() != nil {
		return false
	}
	select {
	case p.answers <- f:
	case <-p.stop:
		return false
	}
	return f.Response().Success && f.Response().Term <= f.Request().Term
}

// Consumer is where raft takes answers.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.stop) })
	return p.AppendPipeline.Close()
}
