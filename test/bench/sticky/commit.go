package main

import (
	"context"
	"sync"
	"time"

	"github.com/skeinlb/skein/api"
)

// prober commits small commands one after another, as an operator's would be: a server's weight, through a node's admin API. The
// time of each is what the command line would wait for, HTTP included.
type prober struct {
	m     *member
	every time.Duration
}

// commit is one command.
type commit struct {
	took time.Duration
	err  error
}

func (p prober) run(ctx context.Context) []commit {
	var cs []commit
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return cs
		}
		weight := 100 + n%2
		start := time.Now()
		_, err := p.m.client.SetServer(context.WithoutCancel(ctx), backend, "s1", api.ServerRequest{Weight: &weight})
		cs = append(cs, commit{time.Since(start), err})
	}
}

// Commits are the times of commands during one phase.
type Commits struct {
	Count     int     `json:"count"`
	Failed    int     `json:"failed"`
	P50Ms     float64 `json:"p50_ms"`
	P99Ms     float64 `json:"p99_ms"`
	MaxMs     float64 `json:"max_ms"`
	Over20    int     `json:"over_20_ms"`
	MachineMs float64 `json:"machine_stall_max_ms"` // how late a thread that only sleeps was woken meanwhile
}

func summarize(cs []commit, stall time.Duration) Commits {
	c := Commits{Count: len(cs), MachineMs: millis(stall)}
	var took []time.Duration
	for _, x := range cs {
		if x.err != nil {
			c.Failed++
			continue
		}
		if x.took > 20*time.Millisecond {
			c.Over20++
		}
		took = append(took, x.took)
	}
	c.P50Ms, c.P99Ms, c.MaxMs = millis(quantile(took, 0.5)), millis(quantile(took, 0.99)), millis(quantile(took, 1))
	return c
}

// Names of rounds.
const (
	atRest    = "table at rest"
	underLoad = "while learning"
)

// Snapshotting is one round: commits while nothing else happens, then while all three nodes take a snapshot.
type Snapshotting struct {
	Name   string    `json:"name"`
	Before Commits   `json:"before"`
	During Commits   `json:"during"`
	TookMs []float64 `json:"snapshot_ms"` // per node, the truncation of the log included
}

// snapshots probes for a while, then probes while all nodes snapshot at the same time: the worst case, since they share a disk.
func (t *trio) snapshots(ctx context.Context, name string, before time.Duration) (Snapshotting, error) {
	s := Snapshotting{Name: name}
	lead, err := t.leader(ctx)
	if err != nil {
		return s, err
	}
	p := prober{lead, 2 * time.Millisecond}
	quiet(ctx)
	s.Before = t.during(ctx, p, func() { time.Sleep(before) })
	took := make([]time.Duration, len(t.nodes))
	errs := make([]error, len(t.nodes))
	s.During = t.during(ctx, p, func() {
		var wg sync.WaitGroup
		for i, m := range t.nodes {
			wg.Go(func() {
				start := time.Now()
				errs[i] = m.node.Snapshot()
				took[i] = time.Since(start)
			})
		}
		wg.Wait()
		time.Sleep(200 * time.Millisecond)
	})
	for i := range took {
		if errs[i] != nil {
			return s, errs[i]
		}
		s.TookMs = append(s.TookMs, millis(took[i]))
	}
	return s, nil
}

// during probes while f runs.
func (t *trio) during(ctx context.Context, p prober, f func()) Commits {
	ctx, cancel := context.WithCancel(ctx)
	var cs []commit
	var stall time.Duration
	var wg sync.WaitGroup
	wg.Go(func() { cs = p.run(ctx) })
	wg.Go(func() { stall = stalls(ctx) })
	f()
	cancel()
	wg.Wait()
	return summarize(cs, stall)
}

// snapshotsUnderLoad is snapshots while clients from first on are learned at rate.
func (t *trio) snapshotsUnderLoad(ctx context.Context, first, rate int) (Snapshotting, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := learning{t: t, from: first, to: 1 << 40, rate: rate}
	var wg sync.WaitGroup
	start := time.Now()
	l.next.Store(int64(first))
	for i := range t.nodes {
		wg.Go(func() { l.learn(ctx, i, start) })
	}
	s, err := t.snapshots(ctx, underLoad, 2*time.Second)
	cancel()
	wg.Wait()
	return s, err
}
