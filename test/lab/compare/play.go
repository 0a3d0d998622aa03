package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/stage"
)

// Times of a run.
const (
	bootPatience  = 2 * time.Minute
	wholePatience = 90 * time.Second
	// watched is how long a client is watched that is not served: longer is never.
	watched = 8 * time.Second
	// calm is how long all requests must be good before an event is over.
	calm = 500 * time.Millisecond
)

// run is what one event did, as it is kept.
type run struct {
	At       time.Time      `json:"at"`
	Commit   string         `json:"commit,omitempty"`
	Load     string         `json:"load"` // of the machine, averages over 1, 5 and 15 minutes
	Before   string         `json:"holder_before"`
	After    string         `json:"holder_after"`
	OutageMs float64        `json:"outage_ms"`       // all stretches in which the client was not served
	Never    bool           `json:"never,omitempty"` // it was not served again while it was watched, or not before the end of what happened
	Requests int            `json:"requests"`
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors,omitempty"`
	Active   int            `json:"active_lost"`
	Idle     int            `json:"idle_lost"`
	Download bool           `json:"download_lost"`
	TwoMs    float64        `json:"two_holders_ms"`
	NoneMs   float64        `json:"no_holder_ms"`
	Switches int            `json:"switches"`
	StallMs  float64        `json:"machine_stood_still_ms"`
	SyncMs   float64        `json:"slowest_sync_ms,omitempty"` // of the machine's disk: an election waits for five, one after the other
}

// result is a run with what is not kept.
type result struct {
	run
	longestTwo time.Duration
	timeline   string
}

// play lets one scenario happen to whoever holds the address. The second result is of its end, where that is measured as an event of its
// own. An error means that the venue is no longer good for anything.
func (v *venue) play(ctx context.Context, s *scenario) (first result, back *result, err error) {
	ready, cancel := context.WithTimeout(ctx, wholePatience)
	defer cancel()
	if err := v.whole(ready); err != nil {
		return first, nil, fmt.Errorf("before %s: %w", s.key, err)
	}
	victim := v.Host(v.Holder())
	if victim == nil {
		return first, nil, fmt.Errorf("before %s: nobody holds the address", s.key)
	}
	cargo, err := v.Load(ready)
	if err != nil {
		return first, nil, fmt.Errorf("before %s: %w", s.key, err)
	}
	defer cargo.Close()

	since := time.Now()
	if err := s.do(ctx, v, victim); err != nil {
		return first, nil, fmt.Errorf("%s of %s: %w", s.key, victim, err)
	}
	never := v.await(ctx, since, func() bool { return !s.moves || s.lasts > 0 || v.claimed(victim) })
	if s.lasts > 0 {
		if err := sleep(ctx, time.Until(since.Add(s.lasts))); err != nil {
			return first, nil, err
		}
		never = never || v.down(since)
		resumed := time.Now()
		if err := s.undo(ctx, v, victim); err != nil {
			return first, nil, fmt.Errorf("the end of %s of %s: %w", s.key, victim, err)
		}
		v.await(ctx, resumed, func() bool { return true })
	}
	first = v.result(ctx, since, victim.Name, cargo)
	first.Never = never
	if s.lasts > 0 {
		return first, nil, v.Err()
	}

	if s.back == "" {
		if err := s.undo(ready, v, victim); err != nil {
			return first, nil, fmt.Errorf("the end of %s of %s: %w", s.key, victim, err)
		}
		return first, nil, v.Err()
	}
	holder := v.Holder()
	if cargo, err = v.Load(ready); err != nil {
		return first, nil, fmt.Errorf("before %s: %w", s.back, err)
	}
	defer cargo.Close()
	since = time.Now()
	if err := s.undo(ready, v, victim); err != nil {
		return first, nil, fmt.Errorf("%s of %s: %w", s.back, victim, err)
	}
	if err := v.whole(ready); err != nil {
		return first, nil, fmt.Errorf("after %s: %w", s.back, err)
	}
	never = v.await(ctx, since, func() bool { return true })
	b := v.result(ctx, since, holder, cargo)
	b.Never = never
	return first, &b, v.Err()
}

// claimed reports whether another host than that answers for the address now, alone or not.
func (v *venue) claimed(victim *lab.Host) bool {
	for _, sample := range v.Watch.Samples(time.Now().Add(-100 * time.Millisecond)) {
		for _, h := range sample.Holders {
			if v.World.HostOf(h[:]) != victim.Name {
				return true
			}
		}
	}
	return false
}

// await waits until the address has moved, if it should, and the client is served well again. It gives up when the client has been
// watched for long enough, and returns true then.
func (v *venue) await(ctx context.Context, since time.Time, moved func() bool) (never bool) {
	ctx, cancel := context.WithDeadline(ctx, since.Add(watched))
	defer cancel()
	if stage.Until(ctx, moved) != nil {
		return v.down(since)
	}
	_, err := v.Fresh.Record.Settled(ctx, time.Now(), calm)
	return err != nil && v.down(since)
}

// down reports whether the client is not served now.
func (v *venue) down(since time.Time) bool {
	spans := v.Fresh.Record.Spans(since)
	return len(spans) > 0 && spans[len(spans)-1].To.IsZero()
}

// result sums up what happened since then.
func (v *venue) result(ctx context.Context, since time.Time, before string, cargo *stage.Cargo) result {
	now := time.Now()
	held, record := v.Held(since), &v.Fresh.Record
	r := result{longestTwo: held.Longest, timeline: v.Timeline(since), run: run{
		At: since.UTC().Truncate(time.Millisecond), Commit: v.commit, Load: loadavg(), Before: before, After: v.Holder(),
		TwoMs: ms(held.Two), NoneMs: ms(held.None), Switches: held.Switches, StallMs: ms(v.Stalled(since)), SyncMs: ms(v.Disk.Slowest(since)),
	}}
	for _, s := range record.Spans(since) {
		if s.To.IsZero() {
			s.To = now
		}
		r.OutageMs += ms(s.To.Sub(s.From))
	}
	o := record.Outage(since)
	r.Requests, r.Failed, r.Errors = o.Requests, o.Failed, o.Errors
	lost := cargo.Unload(ctx, since)
	r.Active, r.Idle, r.Download = lost.Active, lost.Idle, lost.Download
	return r
}

// unsafe says what of a run must never happen, whoever plays and however slow the machine is.
func (r result) unsafe(s *scenario) error {
	var errs []error
	if r.longestTwo > s.two {
		errs = append(errs, fmt.Errorf("two hosts answered for the address for %v, at most %v is allowed\n%s", r.longestTwo, s.two, r.timeline))
	}
	if r.Never {
		errs = append(errs, errors.New("the client was not served again"))
	}
	return errors.Join(errs...)
}

// String is the run in a line.
func (r run) String() string {
	text := fmt.Sprintf("%s -> %s: outage %.1f ms, %d of %d failed, lost %d+%d", r.Before, r.After, r.OutageMs, r.Failed, r.Requests, r.Active, r.Idle)
	if r.Never {
		text += ", NOT SERVED AGAIN"
	}
	if r.Download {
		text += " and the download"
	}
	if r.TwoMs > 0 {
		text += fmt.Sprintf(", two holders %.0f ms", r.TwoMs)
	}
	return text + fmt.Sprintf(", none %.0f ms; the machine stood still %.0f ms, its disk %.0f ms, load %s", r.NoneMs, r.StallMs, r.SyncMs, r.Load)
}

func loadavg() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func ms(d time.Duration) float64 { return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000 }

// sleep lets time pass that belongs to a scenario.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
