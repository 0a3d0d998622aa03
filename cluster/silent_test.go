package cluster

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An exchange is begun on one connection after the other until one has answered. What is silent, and was overtaken, counts as dead; what
// answered late does not.
func TestAnExchangeOvertakesSilentConnections(t *testing.T) {
	const silence = 40 * time.Millisecond
	refused := errors.New("refused")
	type end struct {
		after time.Duration
		err   error
	}
	never := end{rpcTimeout, errors.New("time-out")}
	for _, c := range []struct {
		name  string
		ends  []end // of the attempts, in their order
		took  time.Duration
		tries int
		ok    bool
		dead  bool
	}{
		{"the first answers", []end{{time.Millisecond, nil}}, time.Millisecond, 1, true, false},
		{"the first is dead", []end{never, {time.Millisecond, nil}}, silence + time.Millisecond, 2, true, true},
		{"all that lay ready are dead", []end{never, never, never, {time.Millisecond, nil}}, 3*silence + time.Millisecond, 4, true, true},
		{"all that lay ready were closed", []end{{0, refused}, {0, refused}, {0, refused}, {time.Millisecond, nil}}, time.Millisecond, 4, true, false},
		{"one was closed, one is dead", []end{{0, refused}, never, {time.Millisecond, nil}}, silence + time.Millisecond, 3, true, true},
		{"the first is slow", []end{{50 * time.Millisecond, nil}, {20 * time.Millisecond, nil}}, 50 * time.Millisecond, 2, true, false},
		{"the first is overtaken, and alive", []end{{deadAfter - time.Millisecond, nil}, {0, nil}}, silence, 2, true, false},
		{"busy, and the answers cross", []end{{501 * time.Millisecond, nil}, {460 * time.Millisecond, nil}, never, never}, 500 * time.Millisecond, 4, true, false},
		{"nobody answers", []end{never, never, never, never}, rpcTimeout + 3*silence, 4, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var tries atomic.Int32
				dead, answer := false, -1
				exchange := func(n *int) error {
					*n = int(tries.Add(1)) - 1
					time.Sleep(c.ends[*n].after)
					return c.ends[*n].err
				}
				err := overtake(silence, exchange, &answer, func(time.Time) { dead = true })
				took := time.Since(start)
				time.Sleep(time.Minute)
				synctest.Wait()
				if ok := err == nil && answer >= 0 && c.ends[answer].err == nil; ok != c.ok || took != c.took || int(tries.Load()) != c.tries || dead != c.dead {
					t.Errorf("ok %v after %v and %d tries, one counts as dead: %v; want %+v", ok, took, tries.Load(), dead, c)
				}
			})
		})
	}
}

// The connections to one node over which nothing has come are closed, those to others and those that are new are not.
func TestSilentConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := &wires{}
		open := func(node string) (w *wire, far net.Conn) {
			near, far := net.Pipe()
			return ws.add(node, near), far
		}
		silent, _ := open("a")
		talks, far := open("a")
		other, _ := open("b")
		time.Sleep(time.Second)
		since := time.Now()
		time.Sleep(time.Millisecond)
		fresh, _ := open("a")
		go far.Write([]byte{1})
		if _, err := talks.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if n := ws.drop("a", since); n != 1 {
			t.Errorf("%d were closed, want 1", n)
		}
		for _, c := range []struct {
			name string
			w    *wire
			open bool
		}{{"silent", silent, false}, {"talks", talks, true}, {"new", fresh, true}, {"to another node", other, true}} {
			if err := c.w.SetDeadline(time.Time{}); (err == nil) != c.open {
				t.Errorf("%s: %v, want open %v", c.name, err, c.open)
			}
			c.w.Close()
		}
		if len(ws.to) != 0 {
			t.Errorf("%d nodes are left", len(ws.to))
		}
	})
}
