package plan

import (
	"sync/atomic"

	"github.com/skeinlb/skein/engine/h1"
)

// Failure is why a connection or a request did not get what it came for.
type Failure uint8

const (
	ConnectRefused   Failure = iota // the server's host said no
	ConnectTimeout                  // nobody answered in time
	ConnectError                    // no route, no port left, ...
	ServerClosed                    // the server ended the connection before its response was complete
	ServerMalformed                 // the response could not be parsed
	ResponseTimeout                 // no response head in time
	ServerTimeout                   // no progress of a body or stream on the server's side
	ClientClosed                    // the client went away in the middle
	ClientMalformed                 // the request could not be parsed
	HeadersTimeout                  // no complete request head in time
	ClientTimeout                   // no progress of a body or stream on the client's side
	NoServer                        // no server of the backend may take it
	QueueTimeout                    // every server was at max_connections for too long
	QueueFull                       // and there was no room to wait
	MarkedDown                      // the session was ended because its server went down (on_down = "close")
	OutOfDescriptors                // accept or connect found no descriptor left

	NumFailures // the length of an array that counts by Failure
)

var failureNames = [NumFailures]string{
	ConnectRefused: "connect_refused", ConnectTimeout: "connect_timeout", ConnectError: "connect_error",
	ServerClosed: "server_closed", ServerMalformed: "server_malformed",
	ResponseTimeout: "response_timeout", ServerTimeout: "server_timeout",
	ClientClosed: "client_closed", ClientMalformed: "client_malformed",
	HeadersTimeout: "headers_timeout", ClientTimeout: "client_timeout",
	NoServer: "no_server", QueueTimeout: "queue_timeout", QueueFull: "queue_full",
	MarkedDown: "marked_down", OutOfDescriptors: "out_of_descriptors",
}

// Connecting says that no connection to the server came about, so that nothing of a request was sent.
func (f Failure) Connecting() bool { return f <= ConnectError }

func (f Failure) String() string {
	if f < NumFailures {
		return failureNames[f]
	}
	return "unknown"
}

// Counters are one loop's share of a Stats. Only that loop adds; any goroutine reads.
type Counters struct {
	Connections atomic.Uint64    // accepted (frontend), opened (server)
	Ended       atomic.Uint64    // of those, closed again (frontend)
	Requests    atomic.Uint64    // HTTP requests or TCP sessions begun
	Reused      atomic.Uint64    // requests sent on a connection that had been used before
	Retries     atomic.Uint64    // tried again on another server or connection
	BytesIn     atomic.Uint64    // from the client
	BytesOut    atomic.Uint64    // to the client
	Idle        atomic.Uint64    // connections that ended after their idle time; nothing was lost by it
	Status      [6]atomic.Uint64 // responses by class: Status[2] counts 2xx
	Failures    [NumFailures]atomic.Uint64
	Malformed   [h1.NumErrors]atomic.Uint64 // messages refused, by reason
	_           [64]byte                    // whatever is allocated next to it belongs to another loop
}

// Stats counts for all loops without their sharing a cache line. Its zero value is ready.
type Stats struct {
	loops [MaxLoops]atomic.Pointer[Counters]
}

// Loop returns the counters of that loop, which alone may call it.
func (s *Stats) Loop(loop int) *Counters {
	if c := s.loops[loop].Load(); c != nil {
		return c
	}
	c := new(Counters)
	s.loops[loop].Store(c)
	return c
}

// Totals is a copy of Counters, or a sum of them.
type Totals struct {
	Connections, Ended, Requests, Reused, Retries, BytesIn, BytesOut, Idle uint64

	Status    [6]uint64
	Failures  [NumFailures]uint64
	Malformed [h1.NumErrors]uint64
}

// Open returns how many of a frontend's connections have not ended.
func (t Totals) Open() int64 { return int64(t.Connections - t.Ended) }

// Totals sums up the loops. Each number is right by itself; they are not of one instant.
func (s *Stats) Totals() Totals {
	var t Totals
	for i := range s.loops {
		c := s.loops[i].Load()
		if c == nil {
			continue
		}
		t.Ended += c.Ended.Load() // first, so that Open is never negative for long
		t.Connections += c.Connections.Load()
		t.Requests += c.Requests.Load()
		t.Reused += c.Reused.Load()
		t.Retries += c.Retries.Load()
		t.BytesIn += c.BytesIn.Load()
		t.BytesOut += c.BytesOut.Load()
		t.Idle += c.Idle.Load()
		addAll(t.Status[:], c.Status[:])
		addAll(t.Failures[:], c.Failures[:])
		addAll(t.Malformed[:], c.Malformed[:])
	}
	return t
}

func addAll(sum []uint64, of []atomic.Uint64) {
	for i := range of {
		sum[i] += of[i].Load()
	}
}
