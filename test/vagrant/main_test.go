package main

import (
	"strings"
	"testing"
)

// What a probe has not seen shows nothing: a scenario that happens after the probe's end, or whose nodes can't be told apart, fails.
func TestARowIsJudgedByWhatTheProbeSaw(t *testing.T) {
	one, two := []string{"52:54:00:00:00:01"}, []string{"52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:01"}
	for _, c := range []struct {
		name string
		s    scenario
		r    row
		want string // a part of it; empty: nothing is wrong
	}{
		{"it moves", scenario{}, row{Before: "lb1", After: "lb2", ActedMs: 3100, Seen: report{Over: true, Holders: two, LengthMs: 14000}}, ""},
		{"it stays", scenario{stays: true}, row{Before: "lb1", After: "lb1", ActedMs: 3100, Seen: report{Over: true, Holders: one, LengthMs: 14000}}, ""},
		{"it goes and comes back", scenario{}, row{Before: "lb1", After: "lb1", Seen: report{Over: true, Holders: two}}, ""},
		{"it must stay", scenario{stays: true}, row{Before: "lb1", After: "lb2", Seen: report{Over: true, Holders: two}}, "moved from lb1 to lb2"},
		{"it must stay all the time", scenario{stays: true}, row{Before: "lb1", After: "lb1", Seen: report{Over: true, Holders: two}}, "went from lb1 and came back"},
		{"the probe missed it", scenario{}, row{Before: "lb3", After: "lb2", Seen: report{Over: true, Holders: one}}, "saw 1 MACs"},
		{"nothing came of it", scenario{}, row{Before: "lb3", After: "lb3", Seen: report{Over: true, Holders: one}}, "had to leave lb3"},
		{"the probe had ended", scenario{}, row{Before: "lb3", After: "lb3", ActedMs: 15000, Seen: report{Over: true, Holders: one, LengthMs: 14000}}, "after 15000 ms"},
		{"nobody answers until all machines are up", scenario{long: true}, row{Before: "lb3", After: "lb2", Seen: report{Holders: one}}, ""},
		{"not back", scenario{}, row{Before: "lb1", After: "lb2", Seen: report{Holders: two}}, "not back"},
		{"not back yet in emulation", scenario{}, row{Before: "lb1", After: "lb2", Emulated: true, Seen: report{Holders: two}}, ""},
		{"two", scenario{}, row{Before: "lb1", After: "lb2", Seen: report{Over: true, Holders: two, TwoHolders: 1}}, "two holders in 1 samples"},
		{"two within the bound", scenario{twoHoldersMs: 100}, row{Before: "lb1", After: "lb2", Seen: report{Over: true, Holders: two, TwoHolders: 1, TwoMs: 99}}, ""},
		{"two beyond it", scenario{twoHoldersMs: 100}, row{Before: "lb1", After: "lb2", Seen: report{Over: true, Holders: two, TwoHolders: 3, TwoMs: 100}}, "for 100 ms"},
	} {
		if got := c.r.judge(c.s); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
