// Package proxy is what happens on a loop: the state machines of connections, HTTP/1.1 and TCP, from accept to close.
//
// It knows no sockets' birth (the engine opens listeners), no configuration text and no cluster: it does what a plan says. Each
// Worker belongs to one loop, and so does everything it makes. The one rule: a connection remembers at most one scratch per
// direction; when the taker is full, its producer is not read.
package proxy

import (
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/engine/accesslog"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/engine/tlsterm"
)

// scratchSize is what a loop reads at once.
const scratchSize = 64 << 10

// Sticky is the tables that keep clients on their servers. Loops call it at the same time; it never blocks for long.
type Sticky interface {
	Lookup(table uint64, key [16]byte) (server uint64, ok bool)
	Learn(table uint64, key [16]byte, server uint64, ttl time.Duration)
}

// Shared is what the workers of an engine have in common. It is immutable once they run.
type Shared struct {
	Sticky  Sticky                                          // nil: none
	Log     *accesslog.Log                                  // nil: none
	Failure func(backend, server string, kind plan.Failure) // see failure; nil: nobody listens; called on a loop
	Suspect func(backend string, live *plan.Live)           // a server has failed too often in a row; called on a loop
	Workers []*Worker

	Handshakes     tlsterm.Handshakes // of TLS, of all workers
	Start          time.Time          // of the clock that all loops share, for limits
	Descriptors    *Descriptors       // never nil
	MaxConnections int                // of clients, on all loops; 0: as many as there are descriptors
}

// Worker is the proxy on one loop. Its methods belong to that loop, but for those that say otherwise.
type Worker struct {
	// Immutable.
	id     int
	shared *Shared
	loop   *loop.Loop
	limits h1.Limits

	// Scratch: good until the handler returns, and overwritten by whatever it calls that reads or sends.
	in       []byte
	out      []byte
	sealed   []byte // what TLS has to send; empty but between sealing and sending
	body     []byte
	addr     []byte
	q        h1.Request
	p        h1.Response
	route    plan.Scratch
	toServer h1.ToServer
	toClient h1.ToClient

	bufs          buffers
	clients       *client // all; a list, the newest first
	lastClient    *client // its end
	look          *client // where evict goes on; nil: at the end
	limitStatus   int     // of the next page about a limit
	retryAfter    int64   // seconds, for the next page; 0: it has none
	scarce        bool    // descriptors have lately been
	pausedSockets int
	resuming      bool  // sockets are paused, and something was freed
	clock         int64 // what to add to the loop's time to have the shared one
	spareClients  *client
	spareServers  *server
	serial        uint64
	pools         map[*plan.Live]*pool
	queues        map[string]*queue // by backend
	sockets       map[*Listener]*socket
	todo          bool // a queue is due
	ownTurn       bool // the last place that was freed went to a client of this loop
	turns         []turn
	spareTurns    []turn
	draining      bool
	holding       holding

	lines lines

	dateText [len(http.TimeFormat)]byte
	dateDue  int64

	// Any goroutine may read the following.
	waiting     atomic.Int64 // clients in queues
	connections atomic.Int64 // clients
	toServers   atomic.Int64 // connections to servers, idle ones included
	roused      atomic.Bool  // another loop has said that a place is free, and we have not looked yet
	paused      atomic.Uint64
	asked       atomic.Bool // another loop needs descriptors, and we have not looked yet
	nudged      atomic.Bool // another loop has freed something, and we have not looked yet
}

// turn is a client whose turn was over before its work was.
type turn struct {
	c      *client
	serial uint64
}

// New returns a worker with a loop of its own. id counts from 0 and is below plan.MaxLoops.
func New(id int, shared *Shared, progress *atomic.Uint64) (*Worker, error) {
	w := &Worker{
		id:      id,
		shared:  shared,
		in:      make([]byte, scratchSize),
		out:     make([]byte, 0, largeBuffer+h1.DefaultHead),
		pools:   map[*plan.Live]*pool{},
		queues:  map[string]*queue{},
		sockets: map[*Listener]*socket{},
	}
	w.holding.w, w.holding.timer.Owner = w, &w.holding
	var err error
	log := shared.Log
	if log == nil {
		log = accesslog.New(accesslog.Options{Loops: id + 1})
	}
	w.lines.ring = log.Ring(id)
	w.lines.timer.Owner = logFlusher{w}
	w.loop, err = loop.New(loop.Options{Progress: progress, After: w.after, End: w.end})
	if err == nil {
		w.clock = int64(time.Since(shared.Start)) - w.loop.Now()
	}
	return w, err
}

// Run serves until Stop.
func (w *Worker) Run() { w.loop.Run() }

// Stop ends Run. Any goroutine may call it; what is still open is closed before Run returns.
func (w *Worker) Stop() { w.loop.Stop() }

// end closes everything, on the loop, once that has been stopped.
func (w *Worker) end() {
	w.closeAll()
	w.lines.ring.Flush()
}

// Post has f run on the worker's loop; see loop.Loop.Post. Any goroutine may call it.
func (w *Worker) Post(f func()) bool { return w.loop.Post(f) }

// Ended says that the worker takes no more posts. Any goroutine may call it.
func (w *Worker) Ended() bool { return w.loop.Ended() }

// after runs at the end of an iteration, when no handler is in the middle of something: places that have become free, and
// clients whose turn was over.
func (w *Worker) after() bool {
	if w.todo {
		w.todo = false
		w.serveQueues()
	}
	if w.resuming {
		w.resuming = false
		w.resumeAll()
	}
	if len(w.turns) > 0 {
		turns := w.turns
		w.turns = w.spareTurns[:0]
		for i, t := range turns {
			if t.c.serial == t.serial {
				t.c.run()
			}
			turns[i] = turn{}
		}
		w.spareTurns = turns
	}
	return w.todo || len(w.turns) > 0
}

// again gives c another turn at the end of the iteration.
func (w *Worker) again(c *client) { w.turns = append(w.turns, turn{c, c.serial}) }

// watch registers a connection with the loop.
func (w *Worker) watch(c *conn) bool {
	c.watched = w.loop.Watch(c.fd, c.owner) == nil
	return c.watched
}

// date returns the value of a Date field, at most half a second old.
func (w *Worker) date() []byte {
	if now := w.loop.Now(); now >= w.dateDue {
		w.dateDue = now + int64(500*time.Millisecond)
		time.Now().UTC().AppendFormat(w.dateText[:0], http.TimeFormat)
	}
	return w.dateText[:]
}

// spareClient returns a client that is not in use.
func (w *Worker) spareClient() *client {
	c := w.spareClients
	if c == nil {
		c = &client{w: w}
		c.timer.Owner = c
		return c
	}
	w.spareClients = c.next
	c.next = nil
	return c
}

// link enters c among the worker's clients.
func (w *Worker) link(c *client) {
	w.serial++
	c.serial = w.serial
	c.next, c.prev = w.clients, nil
	if w.clients != nil {
		w.clients.prev = c
	} else {
		w.lastClient = c
	}
	w.clients = c
	w.connections.Add(1)
}

// unlink takes a closed client out and keeps it for another connection.
func (w *Worker) unlink(c *client) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		w.clients = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		w.lastClient = c.prev
	}
	if w.look == c {
		w.look = c.prev
	}
	c.stats().Ended.Inc()
	c.state = clientFree
	c.serial = 0
	c.listener, c.front, c.addr, c.peer = nil, nil, netip.Addr{}, netip.Addr{}
	c.leavePlace()
	c.x = exchange{}
	c.prev, c.next = nil, w.spareClients
	w.spareClients = c
	w.connections.Add(-1)
	w.vacated()
}

// spareServer returns a server connection that is not in use.
func (w *Worker) spareServer() *server {
	w.toServers.Add(1)
	s := w.spareServers
	if s == nil {
		s = &server{w: w}
		s.timer.Owner = s
		return s
	}
	w.spareServers = s.next
	s.next = nil
	return s
}

// failure notes what a server did wrong. Who watches over its health is told of connections that did not come about, and of nothing
// else: what goes wrong later may be the doing of the request, and a client that knows a request which a server answers badly must
// not take the server from everybody else.
func (w *Worker) failure(s *plan.Server, kind plan.Failure) {
	s.Stats.Loop(w.id).Failures[kind].Inc()
	if s.Outlier != nil && kind.Blames() {
		w.blame(s)
	}
	if w.shared.Failure != nil && kind.Connecting() {
		w.shared.Failure(s.Backend, s.Name, kind)
	}
}
