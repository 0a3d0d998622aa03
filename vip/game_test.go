package vip

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// This file plays games: schedules of faults that are drawn from a seed, by the thousand, and made small once one breaks an invariant.

var (
	simSeed  = flag.Uint64("vip.seed", 0, "play the schedule of this seed only, and print its trace")
	simRuns  = flag.Uint64("vip.runs", 0, "how many schedules to play; 0: a few")
	simFirst = flag.Uint64("vip.first", 1, "seed of the first schedule")
	simOut   = flag.String("vip.results", "", "file to write what was played and seen to")
)

// violation is an invariant that did not hold.
type violation string

// counts is how often what happened.
type counts map[string]int

func (c counts) count(what string) {
	if c != nil {
		c[what]++
	}
}

// act is something that may happen at a step; weight is how often, beside the others.
type act struct {
	name   string
	weight int
	do     func()
}

// oneOf does one of acts, by chance.
func (w *world) oneOf(acts []act) {
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	at := w.rng.IntN(total)
	for _, a := range acts {
		if at -= a.weight; at < 0 {
			w.seen.count(a.name)
			a.do()
			return
		}
	}
}

// game is what a seed is played in.
type game struct {
	test   string // that plays it
	play   func(t *testing.T, seed uint64, trace bool) (broken string, seen counts, virtual time.Duration)
	reduce func(t *testing.T, seed uint64, broken string) (smallest, still string)
}

// seeded is the game of a test whose faults are drawn from the seed. kinds are the faults that reduce may leave out, steps is how many there
// are of those that happen.
func seeded[F any](test string, draw func(seed uint64) F, kinds func(*F) map[string]func(), steps func(*F) *int,
	play func(t *testing.T, seed uint64, f F, trace bool) (string, counts, time.Duration)) *game {
	return &game{
		test: test,
		play: func(t *testing.T, seed uint64, trace bool) (string, counts, time.Duration) {
			return play(t, seed, draw(seed), trace)
		},
		reduce: func(t *testing.T, seed uint64, broken string) (string, string) {
			why := broken
			small := reduce(draw(seed), kinds, steps, func(f F) bool {
				broken, _, _ := play(t, seed, f, false)
				why = cmp.Or(broken, why)
				return broken != ""
			})
			return fmt.Sprintf("%+v", small), why
		},
	}
}

// run plays the schedules that the flags ask for, on all cores. It ends at the first broken invariant, with the smallest schedule that
// still breaks it.
func (g *game) run(t *testing.T) counts {
	first, runs := *simFirst, *simRuns
	switch {
	case *simSeed != 0:
		broken, seen, _ := g.play(t, *simSeed, true)
		t.Logf("%v", seen)
		if broken != "" {
			t.Fatal(broken)
		}
		return seen
	case runs == 0 && testing.Short():
		runs = 30
	case runs == 0:
		runs = 150
	}
	var mu sync.Mutex
	all, virtual, done, failed, why := counts{}, time.Duration(0), uint64(0), uint64(0), ""
	next, begun := first, time.Now()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				stop := seed >= first+runs || failed > 0 && seed > failed
				mu.Unlock()
				if stop {
					return
				}
				broken, seen, d := g.play(t, seed, false)
				mu.Lock()
				for k, n := range seen {
					if all[k] += n; strings.HasPrefix(k, "longest") {
						all[k] = max(all[k]-n, n)
					}
				}
				virtual += d
				if done++; done%1000 == 0 {
					fmt.Fprintf(os.Stderr, "%d of %d schedules, %v of virtual time, %v\n", done, runs, virtual.Round(time.Minute), time.Since(begun).Round(time.Second))
				}
				if broken != "" && (failed == 0 || seed < failed) {
					failed, why = seed, broken
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != 0 {
		small, broken := g.reduce(t, failed, why)
		t.Fatalf("seed %d, after %d schedules: %s\nsmallest that still breaks: %s\nagain with a trace: go test ./vip -run %s -v -vip.seed %d",
			failed, failed-first+1, broken, small, g.test, failed)
	}
	t.Logf("seeds %d to %d: %v of virtual time, no invariant broken", first, first+runs-1, virtual.Round(time.Second))
	if *simOut != "" {
		b, err := json.MarshalIndent(map[string]any{
			"first_seed": first, "schedules": runs, "virtual_hours": virtual.Hours(), "violations": 0, "seen": all,
		}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*simOut, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// reduce leaves out of f, one after the other, what a violation does not need, and steps from the end.
func reduce[F any](f F, kinds func(*F) map[string]func(), steps func(*F) *int, breaks func(F) bool) F {
	for _, name := range slices.Sorted(maps.Keys(kinds(&f))) {
		g := f
		kinds(&g)[name]()
		if breaks(g) {
			f = g
		}
	}
	for n := *steps(&f); n > 1; n = *steps(&f) {
		g := f
		*steps(&g) = n / 2
		if !breaks(g) {
			*steps(&g) = n - 1
			if !breaks(g) {
				break
			}
		}
		f = g
	}
	return f
}
