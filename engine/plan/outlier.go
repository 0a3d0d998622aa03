package plan

import (
	"time"

	"github.com/skeinlb/skein/config"
)

// Outlier says when a server that fails the requests of clients is left alone for a while. Immutable.
type Outlier struct {
	failures int32
	window   int64
	eject    int64
	share    float64
}

func compileOutlier(o *config.Outlier) *Outlier {
	if o == nil {
		return nil
	}
	return &Outlier{int32(o.Failures), int64(o.Window), int64(o.Eject), o.Share}
}

// Blames says that the failure is the server's and counts against it.
func (f Failure) Blames() bool {
	switch f {
	case ConnectRefused, ConnectTimeout, ConnectError, ServerClosed, ServerMalformed, ResponseTimeout, ServerTimeout:
		return true
	}
	return false
}

// Unable says that a status speaks of the server's state: 501 and 505 speak of the request.
func Unable(status int) bool { return status >= 500 && status != 501 && status != 505 }

// Failed notes a failure of s, seen by a loop. It reports whether s is to be ejected; whoever hears that tells the control plane.
func (s *Server) Failed(now int64) bool {
	n := s.fails.Add(1)
	if n == 1 || now-s.since.Load() > s.Outlier.window {
		// The first of a row. Two loops may both think that theirs is: then one failure is not counted.
		s.since.Store(now)
		s.fails.Store(1)
		n = 1
	}
	return n >= s.Outlier.failures && s.EjectedUntil.Load() == 0
}

// Succeeded notes that s has done well: failures count only in a row.
func (s *Server) Succeeded() {
	if s.fails.Load() != 0 {
		s.fails.Store(0)
	}
}

// Bounds of ejections: each that follows within calm times its length lasts twice as long as the one before.
const (
	ejectMost = 5 * time.Minute // or the first, if that is longer
	ejectCalm = 10
)

// Eject takes s out of service until the time that it returns, if its failures are still of now and there are servers enough left.
// Its caller calls Refresh then.
func (b *Backend) Eject(s *Server, now int64) (until int64, ok bool) {
	b.Room.mu.Lock()
	defer b.Room.mu.Unlock()
	o := s.Outlier
	if o == nil || s.EjectedUntil.Load() != 0 || s.fails.Load() < o.failures {
		return 0, false
	}
	candidates, ejected, left := 0, 0, 0
	for _, other := range b.Servers {
		if other.wanted() == 0 {
			continue
		}
		candidates++
		if other.EjectedUntil.Load() != 0 {
			ejected++
		} else if other != s && other.Usable.Load() {
			left++
		}
	}
	if left == 0 || ejected >= max(1, int(o.share*float64(candidates)+1e-9)) {
		return 0, false
	}
	d := o.eject
	if s.back != 0 && now-s.back < ejectCalm*d {
		s.repeats++
	} else {
		s.repeats = 0
	}
	for range s.repeats {
		if d *= 2; d >= int64(ejectMost) {
			d = max(o.eject, int64(ejectMost))
			break
		}
	}
	until = now + d
	s.EjectedUntil.Store(until)
	s.Ejections.Add(1)
	s.fails.Store(0)
	return until, true
}
