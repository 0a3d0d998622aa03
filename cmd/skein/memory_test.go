package main

import "testing"

func TestMemoryIsGivenBackWhenACrowdIsOver(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name      string
		last, now heap
		want      bool
	}{
		{"a crowd is over", heap{30 * mb, 90 * mb, 900 * mb}, heap{30 * mb, 91 * mb, 901 * mb}, true},
		{"a crowd is there", heap{30 * mb, 40 * mb, 900 * mb}, heap{30 * mb, 90 * mb, 950 * mb}, false},
		{"nothing to gain", heap{30 * mb, 31 * mb, 900 * mb}, heap{30 * mb, 32 * mb, 901 * mb}, false},
		{"just collected", heap{30 * mb, 90 * mb, 900 * mb}, heap{50 * mb, 51 * mb, 901 * mb}, false},
	} {
		if got := c.now.worthGivingBack(c.last); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if h := readHeap(); h.objects == 0 || h.allocs < h.objects {
		t.Errorf("the runtime says %+v", h)
	}
}
