package cluster

import (
	"sync"
	"time"
)

// asked counts what raft was asked and has not answered yet. Raft answers everything but what is under way when it shuts down: those
// futures never end (1.8.0). So a node that stops lets in no more and waits for the answers before it shuts raft down.
// The zero value is ready.
type asked struct {
	mu sync.Mutex
	// mu guards the following.
	open   int
	closed bool
	none   chan struct{} // set by close, closed when open is 0
}

// answerGrace bounds that wait: without a quorum raft answers when the leader's lease is over, after half a second. Only with
// a disk that hangs does it take longer.
const answerGrace = 2 * time.Second

// begin reports whether raft may be asked; then end must follow.
func (a *asked) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.open++
	return true
}

func (a *asked) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open--; a.open == 0 && a.closed {
		close(a.none)
	}
}

// close lets nothing more in and waits until all is answered, at most for d. It is called once.
func (a *asked) close(d time.Duration) bool {
	a.mu.Lock()
	a.closed = true
	a.none = make(chan struct{})
	if a.open == 0 {
		close(a.none)
	}
	none := a.none
	a.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-none:
		return true
	case <-t.C:
		return false
	}
}
