package main

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skeinlb/skein/internal/lab"
)

// A connection that stands still at the end is lost as much as one that was cut: a host that has gone tells nobody.
func TestLongConnectionsThatAreCutOrSilentCount(t *testing.T) {
	now := time.Now()
	var r Report
	for _, s := range []struct {
		seen lab.StreamReport
		err  error
	}{
		{lab.StreamReport{Connected: true, Echoed: 100, Longest: time.Minute}, nil},                   // it stood still for a while, and goes on
		{lab.StreamReport{Connected: true, Echoed: 100, Silent: patience, Longest: time.Minute}, nil}, // not for too long
		{lab.StreamReport{Connected: true, Silent: patience + 1}, nil},
		{lab.StreamReport{Connected: true, Silent: patience + 1, Cut: now, Why: "reset"}, nil},
		{lab.StreamReport{Connected: true, Cut: now, Why: "reset"}, nil},
		{lab.StreamReport{Connected: true, Cut: now, Why: "closed"}, nil},
		{lab.StreamReport{}, errors.New("connection refused")},
	} {
		r.count(s.seen, s.err)
	}
	want := Report{Silent: 1, Cut: 4, CutBy: map[string]int{"reset": 2, "closed": 1, "connection refused": 1}}
	if d := cmp.Diff(want, r); d != "" {
		t.Errorf("want -, got +\n%s", d)
	}
}
