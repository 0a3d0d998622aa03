package sim

import "testing"

// The checker must find a history that no order explains: two clients commit on the same revision, a commit that a later refusal does not
// know of. And it must not find one where an unknown outcome explains it.
func TestHistoriesThatCannotBeAreFound(t *testing.T) {
	type op struct {
		base uint64
		told told
	}
	for _, x := range []struct {
		name string
		ops  []op // one after the other
		want bool
	}{
		{"in order", []op{{0, told{committed, 1}}, {1, told{committed, 2}}, {1, told{stale, 2}}}, true},
		{"two on one revision", []op{{0, told{committed, 1}}, {0, told{committed, 1}}}, false},
		{"lost", []op{{0, told{committed, 1}}, {1, told{committed, 2}}, {5, told{stale, 1}}}, false},
		{"unknown, and it happened", []op{{0, told{}}, {1, told{committed, 2}}}, true},
		{"unknown, and it did not", []op{{0, told{}}, {0, told{committed, 1}}}, true},
		{"unknown cannot explain two", []op{{0, told{}}, {2, told{committed, 3}}}, false},
	} {
		var h history
		for _, o := range x.ops {
			h.call(write{o.base})(o.told)
		}
		if _, ok := h.check(); ok != x.want {
			t.Errorf("%s: linearizable %v, want %v", x.name, ok, x.want)
		}
	}
}
