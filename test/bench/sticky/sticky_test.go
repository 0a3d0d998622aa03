package main

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// Three real nodes: what each learns, all have; where two disagree, the first in the log wins everywhere. Then all take a
// snapshot, learn some more, and are stopped together. When they are back, from the snapshot and the log behind it, every entry
// is there with its server, and the clients that arrived at all nodes at once are still where they were.
func TestEntriesReachAllNodesAndSurviveTheirRestart(t *testing.T) {
	const before, after, once = 20_000, 5_000, 2_000
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	trio, err := openTrio(ctx, t.TempDir(), false, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := trio.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}()
	if err := trio.configure(ctx, configText(100_000)); err != nil {
		t.Fatal(err)
	}
	learn := func(from, to int) {
		t.Helper()
		l := learning{t: trio, from: from, to: to}
		got, err := l.run(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.Dropped > 0 || got.missing > 0 || got.Samples == 0 {
			t.Errorf("learned %d: %d dropped, %d of those watched never seen elsewhere, %d sightings", to-from, got.Dropped, got.missing, got.Samples)
		}
		if wrong := trio.verify(from, to); wrong > 0 {
			t.Errorf("%d answers of the three nodes are missing or wrong", wrong)
		}
	}
	same := func(when string, from int, want []uint64) {
		t.Helper()
		if wrong := trio.differ(from, want); wrong > 0 {
			t.Errorf("%s: %d answers about clients that arrived everywhere at once differ from before", when, wrong)
		}
	}

	learn(0, before)
	var winners []uint64
	fought := 0
	for won := map[uint64]int{}; len(won) < 2; { // where one node was through before the others had a processor, nothing was contested
		some, split, err := trio.contest(ctx, before+fought, once)
		if err != nil || split > 0 {
			t.Fatalf("clients that arrived everywhere at once: nodes differ on %d of %d (%v)", split, once, err)
		}
		for _, server := range some {
			won[server]++
		}
		winners = append(winners, some...)
		if fought += once; fought == 20*once {
			t.Fatalf("one node won everything (%v): nothing was contested", won)
		}
	}
	for _, m := range trio.nodes {
		if err := m.node.Snapshot(); err != nil {
			t.Fatalf("snapshot of %s: %v", m.conf.Name, err)
		}
	}
	learn(before+fought, before+fought+after)

	for round := range 2 { // the second from what the first replayed
		if err := trio.stop(); err != nil {
			t.Fatal(err)
		}
		if err := trio.restart(ctx); err != nil {
			t.Fatal(err)
		}
		all := before + fought + after
		if err := poll(ctx, "the whole log on every node", func() bool { return trio.entries() == [3]int{all, all, all} }); err != nil {
			t.Fatalf("restart %d: %v: the nodes have %v entries of %d", round+1, err, trio.entries(), all)
		}
		if wrong := trio.verify(0, before) + trio.verify(before+fought, all); wrong > 0 {
			t.Errorf("restart %d: %d answers of the three nodes are missing or wrong", round+1, wrong)
		}
		same("after a restart", before, winners)
	}
	learn(200_000, 200_500) // and they go on learning
}
