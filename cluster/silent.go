package cluster

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// This file is about connections that are dead and do not say so: a firewall between two nodes has lost its table, one path of several
// drops what takes it. Raft keeps idle connections and uses one of them; to wait for an answer until its time-out would cost a
// fail-over, or the leader its lease, three seconds.

const (
	// poolMost is how many idle connections raft keeps to each node. An exchange that is begun once more than that is on a new one.
	poolMost = 3
	// voteSilence is how long a voter may say nothing before it is asked over another connection as well. All of these attempts come
	// before the next candidate's turn; on a slow disk they are in vain, and do no harm: a vote asked for twice in one term is one.
	voteSilence = 40 * time.Millisecond
	// beatSilence is the same for heartbeats, which are answered without any disk. A leader does without answers for 500 ms.
	beatSilence = 100 * time.Millisecond
	// deadAfter is when a connection counts as dead that says nothing while a newer question has been answered over another one. TCP
	// has sent a segment that was lost once more by then.
	deadAfter = 250 * time.Millisecond
	// crossing is how long answers over two connections may overtake each other: those of a node that was busy come all at once.
	crossing = 30 * time.Millisecond
)

// overtake makes an exchange over one connection, and over another one as well whenever the newest has failed, or has said nothing for
// that long. The first answer counts. dead is called when an attempt was overtaken and is still silent deadAfter its beginning,
// and crossing after it was overtaken.
func overtake[T any](silence time.Duration, exchange func(*T) error, resp *T, dead func(begun time.Time)) error {
	type outcome struct {
		n    int
		resp T
		err  error
	}
	outcomes := make(chan outcome, poolMost+1)
	var begun [poolMost + 1]time.Time
	var ended [poolMost + 1]atomic.Bool
	var err error
	for tries, open := 0, 0; tries <= poolMost || open > 0; {
		var next <-chan time.Time
		if tries <= poolMost {
			begun[tries] = time.Now()
			go func(o outcome) { // ends with the exchange, which is bounded
				o.err = exchange(&o.resp)
				ended[o.n].Store(true)
				outcomes <- o
			}(outcome{n: tries})
			tries, open, next = tries+1, open+1, time.After(silence)
		}
		select {
		case o := <-outcomes:
			if open--; o.err != nil {
				err = o.err
				continue
			}
			*resp = o.resp
			for n := range o.n {
				if ended[n].Load() {
					continue
				}
				time.AfterFunc(max(deadAfter-time.Since(begun[n]), crossing), func() {
					if !ended[n].Load() {
						dead(begun[n])
					}
				})
				break
			}
			return nil
		case <-next:
		}
	}
	return err
}

// wires are the connections that this node has opened for raft.
type wires struct {
	mu sync.Mutex
	// mu guards the following.
	to map[string]map[*wire]struct{} // by node
}

type wire struct {
	net.Conn
	all  *wires
	node string
	born time.Time
	said atomic.Int64 // how long after born the other end has said something last
}

func (ws *wires) add(node string, c net.Conn) *wire {
	w := &wire{Conn: c, all: ws, node: node, born: time.Now()}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.to == nil {
		ws.to = map[string]map[*wire]struct{}{}
	}
	if ws.to[node] == nil {
		ws.to[node] = map[*wire]struct{}{}
	}
	ws.to[node][w] = struct{}{}
	return w
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.said.Store(int64(time.Since(w.born)))
	}
	return n, err
}

func (w *wire) Close() error {
	w.all.mu.Lock()
	if delete(w.all.to[w.node], w); len(w.all.to[w.node]) == 0 {
		delete(w.all.to, w.node)
	}
	w.all.mu.Unlock()
	return w.Conn.Close()
}

// drop closes the connections to node over which nothing has come since: whoever waits for an answer there goes on at once, and raft
// finds the idle ones closed. It returns how many these were. One that was merely idle will be opened again.
func (ws *wires) drop(node string, since time.Time) int {
	var silent []*wire
	ws.mu.Lock()
	for w := range ws.to[node] {
		if w.born.Add(time.Duration(w.said.Load())).Before(since) {
			silent = append(silent, w)
		}
	}
	ws.mu.Unlock()
	for _, w := range silent {
		w.Close()
	}
	return len(silent)
}
