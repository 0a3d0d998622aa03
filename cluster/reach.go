package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skeinlb/skein/internal/watch"
)

// This file keeps this node's ways to the other voters open, and known. Followers otherwise never talk to each other: whether two of them
// can elect would come to light when the leader has died, and the handshake on top of it.

// Reach is this node's way to another voter over the one port.
type Reach struct {
	OK    bool      // the last exchange, one every reachEach, has worked
	Since time.Time // since when none has worked although the node is heard; zero: it is well, or it is not heard either
	Err   error     // why the last one has not
}

const (
	// reachEach is the time between exchanges with voters that all answer, reachLost while one does not.
	reachEach = 5 * time.Second
	reachLost = time.Second
)

// keepWarm exchanges a greeting with each of the other voters, and publishes what became of it.
func (c *Cluster) keepWarm(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer c.reaches.Set(nil)
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		pause := reachLost
		if c.voter(c.name) {
			now := c.greet(ctx, c.voters())
			if c.reaches.Set(now); allReached(now) {
				pause = reachEach
			}
		} else if c.reaches.Get() != nil {
			c.reaches.Set(nil)
		}
		timer.Reset(pause)
	}
}

// greet greets all of them at once: one that is silent holds up nobody.
func (c *Cluster) greet(ctx context.Context, voters []raft.Server) map[string]Reach {
	was := c.reaches.Get()
	now := make(map[string]Reach, len(voters))
	var mu sync.Mutex // guards now
	var all sync.WaitGroup
	for _, s := range voters {
		name := string(s.ID)
		if name == c.name || ctx.Err() != nil {
			continue
		}
		all.Go(func() {
			r := was[name].next(c.transport.warm(s.ID, raft.ServerID(c.name)), c.opt.Heard(name), time.Now())
			mu.Lock()
			now[name] = r
			mu.Unlock()
		})
	}
	all.Wait()
	return now
}

// next is what is known after one more exchange.
func (r Reach) next(err error, heard bool, now time.Time) Reach {
	switch {
	case err == nil:
		return Reach{OK: true}
	case !heard:
		return Reach{Err: err}
	case r.Since.IsZero():
		return Reach{Since: now, Err: err}
	}
	return Reach{Since: r.Since, Err: err}
}

func allReached(now map[string]Reach) bool {
	for _, r := range now {
		if !r.OK {
			return false
		}
	}
	return true
}

// Reaches is this node's way to each of the other voters, by name. It is empty on a node that does not vote, and before the first try.
func (c *Cluster) Reaches() *watch.Value[map[string]Reach] { return &c.reaches }
