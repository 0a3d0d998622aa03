// Package accesslog writes a line for each request and session that has ended: as JSON or as HAProxy does, to a file, to standard
// output or to syslog.
//
// It knows no connection and no plan: a loop fills in an Entry, and its Ring formats it at once. The one rule: whoever serves never
// waits for whoever reads the log. A ring is bounded, its loop is its only writer, and when it is full lines are dropped and counted.
package accesslog

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/config"
)

// Options of a Log.
type Options struct {
	Node  string       // its name, for the lines
	Loops int          // how many rings there are
	Log   *slog.Logger // for what happens to the log itself
}

// Log is the access log of one node. Make it with New, give it a goroutine with Run. Any goroutine may call its methods.
type Log struct {
	// Immutable.
	node  string
	pid   int
	log   *slog.Logger
	rings []*Ring
	wake  chan struct{} // room for one: a block is full or due, or something else has changed

	settings atomic.Pointer[Settings] // nil: nothing is logged
	reopen   atomic.Bool
	written  atomic.Uint64
	lost     atomic.Uint64
	problem  atomic.Pointer[string] // why nothing can be written now; nil: it can

	out output // owned by the goroutine in Run
}

// Settings are what a configuration says of the log. Immutable; an exchange keeps those under which it began.
type Settings struct {
	Format  config.LogFormat
	To      string
	Headers []string // of requests, in lower case
	labels  []string // Headers, as the keys of a JSON object
}

// New returns a log that logs nothing yet.
func New(o Options) *Log {
	l := &Log{node: o.Node, pid: os.Getpid(), log: o.Log, wake: make(chan struct{}, 1)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.out.log = l
	for range o.Loops {
		l.rings = append(l.rings, &Ring{log: l})
	}
	return l
}

// Configure has the log do from now on what c says; nil ends it. What is in the rings already goes where c says, in the format of
// before.
func (l *Log) Configure(c *config.Log) {
	if c == nil {
		l.settings.Store(nil)
	} else {
		s := &Settings{Format: c.Format, To: c.To, Headers: c.Headers}
		for _, h := range c.Headers {
			s.labels = append(s.labels, string(append(appendJSON(nil, []byte(h)), ':')))
		}
		l.settings.Store(s)
	}
	l.rouse()
}

// Ring returns the ring of a loop.
func (l *Log) Ring(loop int) *Ring { return l.rings[loop] }

// Reopen has a file be opened again before the next line is written: its name may belong to another file by now.
func (l *Log) Reopen() {
	l.reopen.Store(true)
	l.rouse()
}

func (l *Log) rouse() {
	select {
	case l.wake <- struct{}{}:
	default: // it has been told already
	}
}

// Stats is what became of the lines.
type Stats struct {
	Written uint64
	Dropped uint64 // there was no room in the ring, because writing is slow or impossible, or writing failed
	Problem string // why nothing can be written now; "" when all is well
}

// Stats returns what has been counted.
func (l *Log) Stats() Stats {
	st := Stats{Written: l.written.Load(), Dropped: l.lost.Load()}
	for _, r := range l.rings {
		st.Dropped += r.dropped.Load()
	}
	if p := l.problem.Load(); p != nil {
		st.Problem = *p
	}
	return st
}

// Times of the writer.
const (
	retryAfter = time.Second     // between attempts to open what cannot be opened
	watchEvery = time.Second     // for drops, to say so
	lastWords  = 2 * time.Second // for what is left when the node ends
)

// Run writes until ctx ends, and then what is left if that can be done soon.
func (l *Log) Run(ctx context.Context) {
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		l.write(stop)
	}()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var seen uint64
	dropping := false
	for {
		select {
		case <-ctx.Done():
			close(stop)
			select {
			case <-done:
			case <-time.After(lastWords): // whoever should read does not: the last lines are lost with it
			}
			return
		case <-tick.C:
		}
		now := l.Stats()
		switch {
		case now.Dropped > seen && !dropping:
			l.log.Warn("access log drops lines", "dropped", now.Dropped-seen, "why", cmp.Or(now.Problem, "writing is too slow"))
		case now.Dropped == seen && dropping:
			l.log.Info("access log drops no more lines", "dropped_in_all", now.Dropped)
		}
		dropping, seen = now.Dropped > seen, now.Dropped
	}
}

// write empties the rings, until stop is closed and they are empty or cannot be emptied.
func (l *Log) write(stop <-chan struct{}) {
	defer l.out.close()
	var retry <-chan time.Time
	for ended := false; !ended; {
		select {
		case <-l.wake:
		case <-retry:
		case <-stop:
			ended = true
		}
		retry = nil
		if !l.drain() {
			retry = time.After(retryAfter)
		}
	}
}

// drain writes what is in the rings. It returns false when that cannot be done now.
func (l *Log) drain() bool {
	s := l.settings.Load()
	if s == nil {
		l.out.close()
		l.problem.Store(nil)
		for _, r := range l.rings {
			for r.next() != nil {
				r.free()
			}
		}
		return true
	}
	if l.reopen.Swap(false) {
		l.out.close()
	}
	if err := l.out.open(s.To); err != nil {
		l.trouble(err)
		return false
	}
	for again := true; again; {
		again = false
		for _, r := range l.rings {
			b := r.next()
			if b == nil {
				continue
			}
			again = true
			n, err := l.out.write(b.text)
			l.written.Add(uint64(n))
			l.lost.Add(uint64(b.lines - n))
			r.free()
			if err != nil {
				l.out.close()
				l.trouble(err)
				return false
			}
		}
	}
	if l.problem.Swap(nil) != nil {
		l.log.Info("access log is written again", "to", s.To)
	}
	return true
}

// trouble says once that nothing can be written.
func (l *Log) trouble(err error) {
	why := err.Error()
	if old := l.problem.Swap(&why); old == nil || *old != why {
		l.log.Error("access log cannot be written", "why", why)
	}
}
