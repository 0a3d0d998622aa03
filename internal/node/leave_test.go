package node

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
)

// slowGuard is told that its node is fit, and stops halfway for what then does.
type slowGuard struct {
	Guard
	then func()

	mu   sync.Mutex
	said []bool
}

func (g *slowGuard) SetFit(ok bool, _ string) {
	if ok {
		g.then()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.said = append(g.said, ok)
}

func (g *slowGuard) has(ok bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.said, ok)
}

// A node is judged fit, and begins to stop before the guard has heard of it. The last that the guard hears is that it stops: else it would
// keep its addresses, or take some again, until the agent is gone.
func TestTheLastWordToTheGuardIsThatTheNodeStops(t *testing.T) {
	stopped := make(chan struct{})
	g := &slowGuard{}
	n := &Node{conf: &config.Node{Role: config.Balancer}, guard: g}
	g.then = func() {
		go func() { n.letGo(); close(stopped) }()
		for !n.draining.Load() {
			runtime.Gosched()
		}
		for range 10_000 {
			if g.has(false) {
				return
			}
			runtime.Gosched()
		}
	}
	n.tellFit(api.Running{Revision: 3, Tried: 3}, nil)
	<-stopped
	if want := []bool{true, false}; !slices.Equal(g.said, want) {
		t.Errorf("the guard heard %v, want %v", g.said, want)
	}
	n.tellFit(api.Running{Revision: 4, Tried: 4}, nil)
	if g.said[len(g.said)-1] {
		t.Error("a new configuration made a node fit that stops")
	}
}
