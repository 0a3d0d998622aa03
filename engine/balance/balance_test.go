package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// letters renders n picks: "a" for index 0 and so on.
func letters(n int, pick func() int) string {
	var b strings.Builder
	for range n {
		if i := pick(); i == None {
			b.WriteByte('-')
		} else {
			b.WriteByte('a' + byte(i))
		}
	}
	return b.String()
}

// longestRun is the longest run of one letter in s repeated for ever.
func longestRun(s string) int {
	longest, run := 0, 0
	s += s
	for i := range s {
		if i > 0 && s[i] == s[i-1] {
			run++
		} else {
			run = 1
		}
		longest = max(longest, run)
	}
	return longest
}

func TestRoundRobinIsExactAndSpread(t *testing.T) {
	for _, c := range []struct {
		shares []int32
		run    int // the longest that is acceptable
	}{
		{[]int32{1}, 2}, {[]int32{1, 1}, 1}, {[]int32{1, 1, 1}, 1}, {[]int32{5, 1, 1}, 3}, {[]int32{1, 5, 1}, 3}, {[]int32{1, 1, 5}, 3},
		{[]int32{2, 1}, 2}, {[]int32{3, 2}, 2}, {[]int32{0, 5, 0, 1, 1}, 3}, {[]int32{10, 1, 1, 1, 1}, 4}, {[]int32{7, 3, 2}, 3}, {[]int32{256, 256, 128}, 2},
	} {
		total := 0
		for _, w := range c.shares {
			total += int(w)
		}
		var r RoundRobin
		for round := range 5 {
			s := letters(total, func() int { return r.Pick(c.shares) })
			for i, w := range c.shares {
				if n := strings.Count(s, string(rune('a'+i))); n != int(w) {
					t.Errorf("%v, round %d: %c has %d turns in %d", c.shares, round, 'a'+i, n, total)
				}
			}
			if n := longestRun(s); n > c.run && len(c.shares) > 1 {
				t.Errorf("%v: the longest run in %.40s is %d, want at most %d", c.shares, s, n, c.run)
			}
		}
	}
}

func TestRoundRobinIsExactForAnyShares(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		shares := make([]int32, 1+rng.IntN(12))
		total := 0
		for i := range shares {
			shares[i] = int32(rng.IntN(20))
			total += int(shares[i])
		}
		var r RoundRobin
		for round := range 3 {
			got := make([]int32, len(shares))
			for range total {
				got[r.Pick(shares)]++
			}
			if !slices.Equal(got, shares) {
				t.Fatalf("shares %v, round %d: turns %v", shares, round, got)
			}
		}
	}
}

func TestRoundRobinFollowsChangesOfShares(t *testing.T) {
	var r RoundRobin
	turns := func(n int, shares ...int32) string { return letters(n, func() int { return r.Pick(shares) }) }
	turns(5, 1, 1, 1)
	if s := turns(4, 1, 0, 1); strings.Contains(s, "b") || longestRun(s) > 3 {
		t.Errorf("without b: %s", s)
	}
	if s := turns(3, 0, 0, 0); s != "---" {
		t.Errorf("without anybody: %s", s)
	}
	if s := turns(300, 1, 1, 1); strings.Count(s, "b") < 99 || strings.Count(s, "b") > 101 {
		t.Errorf("b is back for %d of 300 turns", strings.Count(s, "b"))
	}
	if s := turns(4, 1, 1, 1, 1); strings.Count(s, "d") != 1 {
		t.Errorf("with d: %s", s)
	}
}

func TestLeastConn(t *testing.T) {
	for _, c := range []struct {
		shares []int32
		active []int64
		want   string // of six picks without a change of active
	}{
		{[]int32{1, 1, 1}, []int64{3, 2, 3}, "bbbbbb"},
		{[]int32{1, 2, 1}, []int64{3, 5, 4}, "bbbbbb"}, // 5 for a share of 2 is less than 3 for 1
		{[]int32{1, 0, 1}, []int64{3, 0, 4}, "aaaaaa"},
		{[]int32{0, 0}, []int64{0, 0}, "------"},
		{[]int32{1, 1, 1}, []int64{2, 1, 1}, "bcbcbc"},
		{[]int32{1, 1, 1}, []int64{0, 0, 0}, "abcabc"},
	} {
		var l LeastConn
		if got := letters(6, func() int { return l.Pick(c.shares, c.active) }); got != c.want {
			t.Errorf("shares %v, active %v: %s, want %s", c.shares, c.active, got, c.want)
		}
	}
	var l LeastConn
	active := make([]int64, 3)
	shares := []int32{3, 1, 2}
	for range 600 {
		active[l.Pick(shares, active)]++
	}
	if got := fmt.Sprint(active); got != "[300 100 200]" {
		t.Errorf("600 sessions that stay are spread %s over shares %v", got, shares)
	}
}

func TestPicksDoNotAllocate(t *testing.T) {
	shares, active, seeds, cost, upto := []int32{3, 1, 2}, []int64{0, 0, 0}, []uint64{1, 2, 3}, []int64{5, 0, 9}, []int64{3, 4, 6}
	var r RoundRobin
	var l LeastConn
	var lt LeastTime
	var two Random
	table := NewTable(shares, seeds)
	key := uint64(0)
	if n := testing.AllocsPerRun(100, func() {
		r.Pick(shares)
		r.Restart()
		r.Pick(shares)
		l.Pick(shares, active)
		lt.Pick(shares, active, cost)
		two.Two(upto)
		table.At(table.Next(table.Slot(key)))
		key++
	}); n != 0 {
		t.Errorf("%v allocations per pick, want none", n)
	}
}

func BenchmarkRoundRobin(b *testing.B) {
	shares := []int32{5, 1, 1, 1, 1, 1, 1, 1, 1, 1}
	var r RoundRobin
	for b.Loop() {
		r.Pick(shares)
	}
}

func BenchmarkNewTable(b *testing.B) {
	shares, seeds := make([]int32, 10), make([]uint64, 10)
	for i := range shares {
		shares[i], seeds[i] = int32(i+1), Mix(uint64(i))
	}
	for b.Loop() {
		NewTable(shares, seeds)
	}
}
