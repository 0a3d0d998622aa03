package lab

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// Outcome is what became of one request.
type Outcome struct {
	At   time.Time     // when it was started
	Took time.Duration // until its answer was complete, or until it was given up
	Err  string        // "": answered as expected; else "refused", "reset", "closed", "timeout", "unreachable", "HTTP 503", ...
	From string        // the server that answered, when it says so in Server-Name
}

// Good reports whether the request was answered as expected.
func (o Outcome) Good() bool { return o.Err == "" }

func (o Outcome) end() time.Time { return o.At.Add(o.Took) }

// stableRun is how many successes in a row end an outage.
const stableRun = 20

// Outage is what a client saw of an event.
type Outage struct {
	Start    time.Time      `json:"-"` // of the first failed request, or the event itself if that request was under way already
	End      time.Time      `json:"-"` // when the first of a stable run of good answers was complete; zero: not over
	Requests int            `json:"requests"`
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors,omitempty"` // failed requests by Outcome.Err
	Slowest  time.Duration  `json:"-"`                // of the good answers
	last     time.Time      // when the last failed request was given up
}

// Over reports whether there is nothing to wait for: no failure, or a stable run after the last one.
func (o Outage) Over() bool { return o.Failed == 0 || !o.End.IsZero() }

// Length returns how long it lasted: 0 without a failure; up to the last failure if it is not over.
func (o Outage) Length() time.Duration {
	switch {
	case o.Failed == 0:
		return 0
	case o.End.IsZero():
		return o.last.Sub(o.Start)
	}
	return o.End.Sub(o.Start)
}

// outage works out what became of the requests that an event at since may have touched: those that ended after it. outcomes
// are in the order of their starts.
func outage(outcomes []Outcome, since time.Time) Outage {
	var o Outage
	run := 0
	var first time.Time // end of the first good answer of the current run
	for _, r := range outcomes {
		if !r.end().After(since) {
			continue
		}
		o.Requests++
		if !r.Good() {
			if o.Failed == 0 {
				o.Start, o.Errors = r.At, map[string]int{}
				if since.After(r.At) {
					o.Start = since
				}
			}
			o.Failed++
			o.Errors[r.Err]++
			o.End, run = time.Time{}, 0
			if r.end().After(o.last) {
				o.last = r.end()
			}
			continue
		}
		o.Slowest = max(o.Slowest, r.Took)
		if run++; run == 1 {
			first = r.end()
		}
		if o.Failed > 0 && run == stableRun {
			o.End = first
		}
	}
	return o
}

// Record is what a client saw, in the order in which its requests were started. The zero Record is ready. Any goroutine may
// call any method. It grows with every request (about 80 bytes each): a load has an end.
type Record struct {
	mu sync.Mutex
	// mu guards the following.
	outcomes []Outcome
	pending  []bool // per outcome
	open     int    // outcomes before open are all complete
	done     int    // of the outcomes, those that are complete
	failed   int    // of those done
	next     chan struct{}
}

// begin opens a new outcome and returns its number.
func (r *Record) begin(at time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes = append(r.outcomes, Outcome{At: at})
	r.pending = append(r.pending, true)
	return len(r.outcomes) - 1
}

func (r *Record) finish(n int, took time.Duration, from, err string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := &r.outcomes[n]
	o.Took, o.From, o.Err = took, from, err
	r.pending[n] = false
	if r.done++; err != "" {
		r.failed++
	}
	for r.open < len(r.pending) && !r.pending[r.open] {
		r.open++
	}
	if r.next != nil {
		close(r.next)
		r.next = nil
	}
}

// Count returns how many requests have ended so far, and how many of them were not answered as expected.
func (r *Record) Count() (done, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done, r.failed
}

// Since returns the outcomes of the requests that ended after t and before which none is still under way.
func (r *Record) Since(t time.Time) []Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	// No request outlives its deadline by much, so that those before the last minute before t have ended before t.
	i, _ := slices.BinarySearchFunc(r.outcomes[:r.open], t.Add(-time.Minute), func(o Outcome, t time.Time) int {
		return o.At.Compare(t)
	})
	var list []Outcome
	for _, o := range r.outcomes[i:r.open] {
		if o.end().After(t) {
			list = append(list, o)
		}
	}
	return list
}

// Outage returns what the client has seen of an event at since, so far.
func (r *Record) Outage(since time.Time) Outage { return outage(r.Since(since), since) }

// Settled waits until all requests started within quiet after since, and then those of a stable run, have been good or the
// outage that they saw is over. It returns the outage as it stands when ctx ends, with ctx's error.
func (r *Record) Settled(ctx context.Context, since time.Time, quiet time.Duration) (Outage, error) {
	for {
		r.mu.Lock()
		if r.next == nil {
			r.next = make(chan struct{})
		}
		next := r.next
		r.mu.Unlock()
		list := r.Since(since)
		o := outage(list, since)
		if n := len(list); n >= stableRun && o.Over() && list[n-stableRun].At.After(since.Add(quiet)) {
			return o, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return o, context.Cause(ctx)
		}
	}
}

// Summary is a Record in a few numbers.
type Summary struct {
	Requests int
	Failed   int
	Errors   map[string]int
	PerSec   float64
	P50, P99 time.Duration // of the good answers
	Slowest  time.Duration
	From     map[string]int // good answers by server
}

// Summary sums up what ended after since.
func (r *Record) Summary(since time.Time) Summary {
	list := r.Since(since)
	s := Summary{Requests: len(list), Errors: map[string]int{}, From: map[string]int{}}
	var took []time.Duration
	for _, o := range list {
		if !o.Good() {
			s.Failed++
			s.Errors[o.Err]++
			continue
		}
		took = append(took, o.Took)
		if o.From != "" {
			s.From[o.From]++
		}
	}
	if n := len(took); n > 0 {
		slices.SortFunc(took, cmp.Compare)
		s.P50, s.P99, s.Slowest = took[n/2], took[n*99/100], took[n-1]
	}
	if n := len(list); n > 1 {
		if d := list[n-1].At.Sub(list[0].At); d > 0 {
			s.PerSec = float64(n-1) / d.Seconds()
		}
	}
	return s
}
