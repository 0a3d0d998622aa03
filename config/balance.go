package config

import "time"

// HashKey is what consistent hashing is keyed by.
type HashKey struct {
	Source string // "client", "path", "uri" (path and query), "header", "cookie", "query"
	Name   string // of the header (in lower case), cookie or query parameter
}

func (k HashKey) String() string {
	if k.Name != "" {
		return k.Source + "[" + quote(k.Name) + "]"
	}
	return k.Source
}

// Retries says how often and why a request is tried on another server. One of which a byte was sent is only ever tried again if
// to do it twice does no harm and all of it is still here, whatever On says.
type Retries struct {
	Attempts int
	On       []string // of RetryReasons, in their order
	Budget   float64  // how many requests may be sent a second time, as a share of all
}

// RetryReasons are the words of retries.on: no connection came about, the server closed it without an answer, no answer came in
// time, or it was one of these.
var RetryReasons = []string{"connect", "closed", "timeout", "500", "502", "503", "504"}

// Queue bounds the clients of one node that wait for a place on the servers of a backend.
type Queue struct {
	Length  int           // clients; 0: nobody waits
	Timeout time.Duration // after which one that still waits is turned away
}

// Outlier says when a server that fails the requests of clients is left alone for a while.
type Outlier struct {
	Failures int           // in a row
	Window   time.Duration // in which they happen
	Eject    time.Duration // for how long at first; twice as long each time that follows soon
	Share    float64       // of the servers: no more are ejected at once (but one may always be, unless it is the last)
}
