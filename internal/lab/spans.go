package lab

import "time"

// Span is a stretch of time in which a client was not served.
type Span struct {
	From time.Time // the first failed request was started, or the event itself if that one was under way already
	To   time.Time // the first of a stable run of good answers was complete; zero: not over
}

// Spans returns when the client was not served since then: an event that fails in two ways (a machine that hangs, and then wakes up)
// has two of them, and what lies between is no outage.
func (r *Record) Spans(since time.Time) []Span { return spans(r.Since(since), since) }

// spans works on outcomes in the order of their starts.
func spans(outcomes []Outcome, since time.Time) []Span {
	var list []Span
	var first time.Time // end of the first good answer of the current run
	run, down := 0, false
	for _, o := range outcomes {
		if !o.end().After(since) {
			continue
		}
		if !o.Good() {
			run = 0
			if !down {
				from := o.At
				if since.After(from) {
					from = since
				}
				list, down = append(list, Span{From: from}), true
			}
			continue
		}
		if run++; run == 1 {
			first = o.end()
		}
		if down && run == stableRun {
			list[len(list)-1].To, down = first, false
		}
	}
	return list
}
