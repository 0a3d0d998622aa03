package main

import "testing"

// VIPs that leave several nodes at once, one of which cannot count its connections.
func TestWhatOneNodeCannotCountMakesTheSumALowerBound(t *testing.T) {
	none, some := 0, 1318
	for _, x := range []struct {
		nodes []*int
		want  string
		none  bool
	}{
		{nil, "0 connections", true},
		{[]*int{&none}, "0 connections", true},
		{[]*int{&some, &some}, "2,636 connections", false},
		{[]*int{nil}, "an unknown number of connections", false},
		{[]*int{&none, nil}, "an unknown number of connections", false},
		{[]*int{nil, &some}, "at least 1,318 connections", false},
	} {
		var r remaining
		for _, n := range x.nodes {
			r.add(n)
		}
		if r.String() != x.want || r.none() != x.none {
			t.Errorf("%q, none: %v; want %q, %v", r, r.none(), x.want, x.none)
		}
	}
}
