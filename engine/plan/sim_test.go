package plan

import (
	"container/heap"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
)

// answers are the requests under way of a simulation, the next to be answered first.
type answers []answer

type answer struct {
	at    int64
	began int64
	seq   int
	s     *Server
}

func (a answers) Len() int { return len(a) }
func (a answers) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a answers) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *answers) Push(x any)   { *a = append(*a, x.(answer)) }
func (a *answers) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// slowShare lets 40 clients ask one after the other, on two loops, for 20 virtual seconds. Nine servers answer within 5 ms, one within
// 200 ms. It returns which part of the requests the slow one got.
func slowShare(t *testing.T, balance config.Balance) float64 {
	weights := make([]int, 10)
	for i := range weights {
		weights[i] = 1
	}
	b := newBackend(t, balance, weights...)
	slow := b.Servers[3]
	var under answers
	total, toSlow := 0, 0
	ask := func(client int, now int64) {
		s := b.Pick(Want{Loop: client % 2, Now: now})
		s.Begin()
		took := 5 * time.Millisecond
		if s == slow {
			took = 200 * time.Millisecond
			toSlow++
		}
		total++
		heap.Push(&under, answer{now + int64(took), now, client, s})
	}
	for client := range 40 {
		ask(client, int64(client)*1000)
	}
	for {
		a := heap.Pop(&under).(answer)
		if a.at > int64(20*time.Second) {
			return float64(toSlow) / float64(total)
		}
		a.s.End()
		a.s.Answered(a.at, time.Duration(a.at-a.began))
		ask(a.seq, a.at)
	}
}

func TestASlowServersShare(t *testing.T) {
	for _, c := range []struct {
		balance config.Balance
		most    float64
	}{
		{config.LeastConn, 0.005},
		{config.Random, 0.007},
		{config.LeastTime, 0.001},
		{config.RoundRobin, 0.1001}, // it cannot know
	} {
		got := slowShare(t, c.balance)
		t.Logf("%v: %.3f %%", c.balance, 100*got)
		if got > c.most {
			t.Errorf("%v gives the slow server %.2f %% of the requests, want at most %.2f %%", c.balance, 100*got, 100*c.most)
		}
	}
}

// The transcript of the promise: 5:1:1 in every period, no server more than three times in a row.
func TestFiveOneOne(t *testing.T) {
	b := newBackend(t, config.RoundRobin, 5, 1, 1)
	const want = "aabaaca"
	if got := picks(b, 21, 0); got != want+want+want {
		t.Errorf("three periods of 5:1:1: %s, want three times %s", got, want)
	}
}
