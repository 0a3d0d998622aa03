package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"
)

// Stream is one long TCP connection to an echo server that must not be cut: a number every Every, and it must come back.
type Stream struct {
	Target netip.AddrPort
	Every  time.Duration // 0: 10 ms

	mu sync.Mutex
	// mu guards the following.
	report StreamReport
	last   time.Time // when the last number came back; zero: the stream is over
}

// StreamReport is what a Stream has seen.
type StreamReport struct {
	Connected bool
	Echoed    uint64        // numbers that came back
	LongestAt time.Time     // when the longest silence began
	Longest   time.Duration // the longest wait for a number beyond Every, one that still lasts included
	Silent    time.Duration // nothing had come back for so long beyond Every when it was looked at, or ended
	Cut       time.Time     // zero: never
	Why       string        // it was cut
}

// Report returns what the stream has seen so far.
func (s *Stream) Report() StreamReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silence(time.Now())
	return s.report
}

// Lost returns why the stream is of no use to its client any more: it was cut, or nothing had come back for longer than patience when it
// was looked at or ended. Nobody tells the client of a host that is gone: its connections just stand still. Empty: it is in use.
func (r StreamReport) Lost(patience time.Duration) string {
	switch {
	case !r.Connected:
		return "never connected"
	case !r.Cut.IsZero():
		return r.Why
	case r.Silent > patience:
		return "silent"
	}
	return ""
}

// silence notes how long nothing has come back. s.mu is held.
func (s *Stream) silence(now time.Time) {
	if s.last.IsZero() {
		return
	}
	s.report.Silent = max(now.Sub(s.last)-s.every(), 0)
	if d := s.report.Silent; d > s.report.Longest {
		s.report.Longest, s.report.LongestAt = d, s.last
	}
}

func (s *Stream) every() time.Duration {
	if s.Every > 0 {
		return s.Every
	}
	return 10 * time.Millisecond
}

// Run keeps the stream up from h until ctx ends or the stream is cut; being cut is a finding and no error of Run.
func (s *Stream) Run(ctx context.Context, h *Host) error {
	c, err := h.connect(s.Target, time.Now().Add(5*time.Second))
	if err != nil {
		return fmt.Errorf("stream from %s to %v: %w", h.Name, s.Target, err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("stream from %s: %w", h.Name, err)
	}
	s.mu.Lock()
	s.report.Connected, s.last = true, time.Now()
	s.mu.Unlock()

	cut := make(chan error, 2)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.Close() // before waiting: ends both
	wg.Go(func() {
		var b [8]byte
		tick := time.NewTicker(s.every())
		defer tick.Stop()
		for n := uint64(0); ; n++ {
			binary.BigEndian.PutUint64(b[:], n)
			if _, err := c.Write(b[:]); err != nil {
				cut <- err
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() {
		var b [8]byte
		for n := uint64(0); ; n++ {
			if _, err := io.ReadFull(c, b[:]); err != nil {
				cut <- err
				return
			}
			if got := binary.BigEndian.Uint64(b[:]); got != n {
				cut <- fmt.Errorf("number %d came back as %d", n, got)
				return
			}
			s.mu.Lock()
			now := time.Now()
			s.silence(now)
			s.report.Echoed, s.last = n+1, now
			s.mu.Unlock()
		}
	})
	select {
	case <-ctx.Done():
	case err := <-cut:
		if ctx.Err() == nil {
			s.mu.Lock()
			s.report.Cut, s.report.Why = time.Now(), inAWord(err)
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	s.silence(time.Now())
	s.last = time.Time{}
	s.mu.Unlock()
	return nil
}
