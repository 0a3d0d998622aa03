package main

import (
	"fmt"
	"slices"
	"strings"
)

// table is the report for people: the median and the worst of the rounds.
func (r *Report) table() string {
	var b strings.Builder
	row := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-48s "+format+"\n", append([]any{what}, args...)...)
	}
	learned := func(what string, ls []Learned) {
		row(what+", entries/s", "median %8.0f   lowest %8.0f", pick(ls, 0.5, rateOf), pick(ls, 0, rateOf))
		row("  CPU per entry, all three nodes", "median %8.1f   worst %9.1f µs", pick(ls, 0.5, cpuOf), pick(ls, 1, cpuOf))
		row("  visible on the other nodes, p50", "median %8.1f   worst %9.1f ms", pick(ls, 0.5, p50Of), pick(ls, 1, p50Of))
		row("  visible on the other nodes, p99", "median %8.1f   worst %9.1f ms", pick(ls, 0.5, p99Of), pick(ls, 1, p99Of))
		row("  visible on the other nodes, slowest of all", "median %8.1f   worst %9.1f ms", pick(ls, 0.5, maxOf), pick(ls, 1, maxOf))
	}
	fmt.Fprintf(&b, "%v, %d CPUs, load %s before\n\n", r.At.Format("2006-01-02 15:04:05Z"), r.CPUs, r.Load)
	learned("learned at a pace", r.Paced)
	learned("learned as fast as the log takes it", r.Unpaced)
	b.WriteByte('\n')
	for _, name := range []string{atRest, underLoad} {
		ss := slices.DeleteFunc(slices.Clone(r.Snapshots), func(s Snapshotting) bool { return s.Name != name })
		for _, during := range []bool{false, true} {
			of := func(s Snapshotting) Commits {
				if during {
					return s.During
				}
				return s.Before
			}
			what := map[bool]string{false: "a commit before", true: "a commit during a snapshot"}[during]
			row(what+", "+name+", p50", "median %8.1f   worst %9.1f ms",
				pick(ss, 0.5, func(s Snapshotting) float64 { return of(s).P50Ms }), pick(ss, 1, func(s Snapshotting) float64 { return of(s).P50Ms }))
			row("  failed", "median %8.0f   worst %9.0f",
				pick(ss, 0.5, func(s Snapshotting) float64 { return float64(of(s).Failed) }), pick(ss, 1, func(s Snapshotting) float64 { return float64(of(s).Failed) }))
			row("  p99", "median %8.1f   worst %9.1f ms",
				pick(ss, 0.5, func(s Snapshotting) float64 { return of(s).P99Ms }), pick(ss, 1, func(s Snapshotting) float64 { return of(s).P99Ms }))
			row("  slowest of a round", "median %8.1f   worst %9.1f ms",
				pick(ss, 0.5, func(s Snapshotting) float64 { return of(s).MaxMs }), pick(ss, 1, func(s Snapshotting) float64 { return of(s).MaxMs }))
			row("  a thread that only sleeps was woken late by", "median %8.1f   worst %9.1f ms",
				pick(ss, 0.5, func(s Snapshotting) float64 { return of(s).MachineMs }), pick(ss, 1, func(s Snapshotting) float64 { return of(s).MachineMs }))
		}
		row("a snapshot takes, "+name, "median %8.0f   worst %9.0f ms", pick(ss, 0.5, tookOf), pick(ss, 1, tookOf))
	}
	b.WriteByte('\n')
	row(fmt.Sprintf("restart of all nodes, %d entries", r.Restart.Entries), "stop %.0f ms, back in %.0f ms; %d wrong", r.Restart.StopMs, r.Restart.OpenMs, r.Restart.Wrong)
	row(fmt.Sprintf("learned on all nodes at once, %d entries", r.Restart.Contested), "%d on which nodes disagree", r.Restart.Split)
	for _, t := range r.Traffic {
		what := "real requests, a connection each"
		if t.KeepAlive {
			what = "real requests, keep-alive"
		}
		row(what+", entries/s", "%8.0f   request p50 %.1f ms, p99 %.1f ms; %d failed, %d dropped", t.Rate, t.P50Ms, t.P99Ms, t.Failed, t.Dropped)
	}
	return b.String()
}

func rateOf(l Learned) float64 { return l.Rate }
func cpuOf(l Learned) float64  { return l.CPU * 1e6 / float64(max(l.Entries, 1)) }
func p50Of(l Learned) float64  { return l.P50Ms }
func p99Of(l Learned) float64  { return l.P99Ms }
func maxOf(l Learned) float64  { return l.MaxMs }

// tookOf is how long the slowest node took.
func tookOf(s Snapshotting) float64 { return slices.Max(s.TookMs) }

// pick returns the q-th part of a figure.
func pick[T any](all []T, q float64, f func(T) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	var fs []float64
	for _, x := range all {
		fs = append(fs, f(x))
	}
	slices.Sort(fs)
	return fs[min(len(fs)-1, int(q*float64(len(fs))))]
}
