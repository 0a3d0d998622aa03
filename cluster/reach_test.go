package cluster

import (
	"errors"
	"testing"
	"time"
)

// Only a node that is heard is missed, and since it was: one that was gone for an hour is not unreached for an hour when it is back.
func TestReach(t *testing.T) {
	cut := errors.New("cut")
	begin := time.Unix(1_700_000_000, 0)
	r := Reach{}
	for i, c := range []struct {
		err   error
		heard bool
		ok    bool
		since int // seconds after begin; -1: not missed
	}{
		{nil, true, true, -1},
		{cut, true, false, 1},
		{cut, true, false, 1},
		{nil, true, true, -1},
		{cut, false, false, -1},
		{cut, false, false, -1},
		{cut, true, false, 6},
		{cut, true, false, 6},
		{cut, false, false, -1},
		{cut, true, false, 9},
		{nil, false, true, -1},
	} {
		r = r.next(c.err, c.heard, begin.Add(time.Duration(i)*time.Second))
		var since time.Time
		if c.since >= 0 {
			since = begin.Add(time.Duration(c.since) * time.Second)
		}
		if r.OK != c.ok || !r.Since.Equal(since) || r.Err != c.err {
			t.Fatalf("after %d: %+v, want ok %v since %v", i, r, c.ok, since)
		}
	}
}
