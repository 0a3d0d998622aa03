package balance

import (
	"fmt"
	"testing"
	"time"
)

func TestLatencyJumpsUpAndFades(t *testing.T) {
	const ms, s = 1_000_000, 1_000_000_000
	for _, c := range []struct {
		name   string
		answer [][2]int64 // when, how long
		at     int64
		want   int64 // us
	}{
		{"nothing is known", nil, 0, 0},
		{"one answer", [][2]int64{{0, 5 * ms}}, 0, 5000},
		{"no time at all is something", [][2]int64{{0, 0}}, 0, 1},
		{"half after 5 s", [][2]int64{{0, 8 * ms}}, 5 * s, 4000},
		{"three quarters after 2.5 s", [][2]int64{{0, 8 * ms}}, 5 * s / 2, 6000},
		{"an eighth after 15 s", [][2]int64{{0, 8 * ms}}, 15 * s, 1000},
		{"up at once", [][2]int64{{0, 5 * ms}, {1 * s, 200 * ms}}, 1 * s, 200_000},
		{"not down at once", [][2]int64{{0, 200 * ms}, {0, 10 * ms}}, 0, 200_000},
		{"half of the way down in 5 s", [][2]int64{{0, 200 * ms}, {5 * s, 10 * ms}}, 5 * s, 105_000},
		{"all the way with answers", [][2]int64{{0, 200 * ms}, {60 * s, 10 * ms}}, 60 * s, 10_046},
		{"never nothing again", [][2]int64{{0, 5 * ms}}, 3600 * s, 1},
		{"another loop's clock is behind", [][2]int64{{10 * s, 5 * ms}}, 9 * s, 5000},
		{"a very long time", [][2]int64{{0, 100 * 3600 * s}}, 0, maxLatency},
		{"the clock wraps after 49 days", [][2]int64{{1<<32*ms - 5*s, 8 * ms}}, 1 << 32 * ms, 4000},
	} {
		var l Latency
		for _, a := range c.answer {
			l = l.Observe(a[0], time.Duration(a[1]))
		}
		if got := l.Cost(c.at); got != c.want {
			t.Errorf("%s: %d us, want %d", c.name, got, c.want)
		}
	}
}

func TestLeastTime(t *testing.T) {
	for _, c := range []struct {
		shares []int32
		active []int64
		cost   []int64
		want   string // of six picks without a change of what is known
	}{
		{[]int32{1, 1, 1}, []int64{0, 0, 0}, []int64{5, 4, 9}, "bbbbbb"},
		{[]int32{1, 1, 1}, []int64{0, 1, 0}, []int64{5, 4, 9}, "aaaaaa"}, // two answers of 4 take longer than one of 5
		{[]int32{1, 3, 1}, []int64{0, 1, 0}, []int64{5, 4, 9}, "bbbbbb"}, // but not for three times the share
		{[]int32{1, 1, 1}, []int64{0, 0, 0}, []int64{5, 0, 9}, "bbbbbb"}, // unknown: find out
		{[]int32{1, 1, 1}, []int64{0, 1, 0}, []int64{5, 0, 9}, "aaaaaa"}, // and wait for the answer
		{[]int32{1, 0, 1}, []int64{0, 0, 0}, []int64{5, 4, 9}, "aaaaaa"},
		{[]int32{0, 0, 0}, []int64{0, 0, 0}, []int64{0, 0, 0}, "------"},
		{[]int32{1, 1, 1}, []int64{2, 2, 2}, []int64{5, 5, 5}, "bcabca"},
	} {
		var l LeastTime
		if got := letters(6, func() int { return l.Pick(c.shares, c.active, c.cost) }); got != c.want {
			t.Errorf("%s: %s, want %s", fmt.Sprint(c.shares, c.active, c.cost), got, c.want)
		}
	}
}
