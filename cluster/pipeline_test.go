package cluster

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// answered is an exchange that has ended.
type answered struct {
	raft.AppendFuture
	success bool
	term    uint64
	err     error
}

func (a answered) Error() error                        { return a.err }
func (a answered) Start() time.Time                    { return time.Time{} }
func (a answered) Request() *raft.AppendEntriesRequest { return &raft.AppendEntriesRequest{Term: 5} }
func (a answered) Response() *raft.AppendEntriesResponse {
	return &raft.AppendEntriesResponse{Success: a.success, Term: a.term}
}

// inner is raft's pipeline with its channels as they are: without room.
type inner struct {
	answers chan raft.AppendFuture
	room    chan struct{}
	closed  chan struct{}
}

func (i *inner) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	select {
	case i.room <- struct{}{}:
		return nil, nil
	case <-i.closed:
		return nil, raft.ErrPipelineShutdown
	}
}
func (i *inner) Consumer() <-chan raft.AppendFuture { return i.answers }
func (i *inner) Close() error {
	select {
	case <-i.closed:
	default:
		close(i.closed)
	}
	return nil
}

// A follower refuses an entry, or does not answer in time. Raft takes no more answers then, but may send once more; without the guard
// that send waited for ever, and the follower with it.
func TestAPipelineNeverWaitsOnceAnExchangeDidNotSucceed(t *testing.T) {
	for _, c := range []struct {
		name   string
		last   answered
		passed bool // raft sees the last one
	}{
		{"the follower refuses", answered{success: false, term: 5}, true},
		{"the follower knows a newer term", answered{success: false, term: 6}, true},
		{"no answer in time, which is no sign of life", answered{err: errors.New("i/o timeout")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &inner{answers: make(chan raft.AppendFuture), room: make(chan struct{}), closed: make(chan struct{})}
				p := newPipeline(in)
				go func() { in.answers <- answered{success: true, term: 5} }()
				if f := <-p.Consumer(); !f.Response().Success {
					t.Error("the first answer is no success")
				}
				go func() {
					for { // as decodeResponses does: the next answer, whether somebody takes it or not
						select {
						case in.answers <- c.last:
						case <-in.closed:
							return
						}
					}
				}()
				if c.passed {
					if f := <-p.Consumer(); f.Response().Success {
						t.Error("the last answer is a success")
					}
				} else {
					synctest.Wait()
					select {
					case f := <-p.Consumer():
						t.Errorf("raft was told of %+v", f)
					default:
					}
				}
				if _, err := p.AppendEntries(nil, nil); !errors.Is(err, raft.ErrPipelineShutdown) {
					t.Errorf("send: %v, want %v", err, raft.ErrPipelineShutdown)
				}
				p.Close()
			})
		})
	}
}
