// Command sticky measures what the sticky tables of a cluster carry: three nodes in this process, raft over TLS on loopback, logs
// and snapshots on this disk. It learns on all three, watches entries appear on the others, fills a table, takes snapshots while
// small commands are committed, and stops and starts all nodes. It is not a test: a slow machine gives slow figures, and only
// what is wrong (an entry that is missing, or differs between nodes) makes it fail.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// Report is everything that was measured.
type Report struct {
	At        time.Time      `json:"at"`
	CPUs      int            `json:"cpus"`
	Load      string         `json:"load_average"` // before
	Paced     []Learned      `json:"paced"`
	Unpaced   []Learned      `json:"unpaced"`
	Fill      Learned        `json:"fill"`
	Snapshots []Snapshotting `json:"snapshots"`
	Restart   Restart        `json:"restart"`
	Traffic   []Traffic      `json:"traffic"`
}

// Restart is how a full table came back.
type Restart struct {
	Entries   int     `json:"entries"`
	StopMs    float64 `json:"stop_ms"`
	OpenMs    float64 `json:"open_ms"` // until three voters, a leader
	Wrong     int     `json:"wrong"`   // entries missing or different on some node
	Contested int     `json:"contested"`
	Split     int     `json:"split"` // contested entries on which nodes disagree
}

func main() {
	o := options{}
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measurement")
	flag.IntVar(&o.seconds, "seconds", 5, "length of a paced round")
	flag.IntVar(&o.rate, "rate", 60_000, "entries per second of a paced round, all nodes together")
	flag.IntVar(&o.size, "size", 1_000_000, "entries in the full table")
	flag.StringVar(&o.dir, "dir", "", "where the nodes keep their data; empty: a temporary directory")
	flag.StringVar(&o.out, "out", "test/bench/results/sticky", "directory for the figures; empty: do not write")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the learning here")
	flag.BoolVar(&o.verbose, "v", false, "show what the nodes log")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "sticky:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, seconds, rate, size int
	dir, out, profile           string
	verbose                     bool
}

func run(ctx context.Context, o options) error {
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "skein-sticky-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	r := &Report{At: time.Now().UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Load: loadAverage()}
	if err := tables(ctx, o, log, r); err != nil {
		return err
	}
	for _, keep := range []bool{true, false} {
		tr, err := traffic(ctx, filepath.Join(o.dir, fmt.Sprintf("traffic-%v", keep)), keep, time.Duration(o.seconds)*time.Second, log)
		if err != nil {
			return err
		}
		r.Traffic = append(r.Traffic, tr)
	}
	text := r.table()
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	return write(o.out, r, text)
}

// tables measures everything that needs no traffic.
func tables(ctx context.Context, o options, log *slog.Logger, r *Report) (err error) {
	t, err := openTrio(ctx, o.dir, false, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	if err := t.configure(ctx, configText(o.size)); err != nil {
		return err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	next := 0
	learn := func(n, rate int) (Learned, error) {
		l := learning{t: t, from: next, to: next + n, rate: rate}
		next += n
		got, err := l.run(ctx)
		if err == nil && got.missing > 0 && got.Dropped == 0 { // a ring that was full is a figure, an entry that got lost a fault
			err = fmt.Errorf("%d entries were never seen on another node", got.missing)
		}
		say("learned %d at %.0f/s (asked for %d/s): visible p50 %.1f ms, p99 %.1f ms, max %.1f ms; CPU %.1f s; dropped %d",
			got.Entries, got.Rate, rate, got.P50Ms, got.P99Ms, got.MaxMs, got.CPU, got.Dropped)
		return got, err
	}
	for range o.rounds {
		// What is left of the table after the rounds fills it, so that no round evicts.
		got, err := learn(min(o.rate*o.seconds, o.size/(3*o.rounds)), o.rate)
		if err != nil {
			return err
		}
		r.Paced = append(r.Paced, got)
	}
	for range o.rounds {
		got, err := learn(o.size/(3*o.rounds), 0)
		if err != nil {
			return err
		}
		r.Unpaced = append(r.Unpaced, got)
	}
	if r.Fill, err = learn(o.size-contested-next, o.rate); err != nil {
		return err
	}
	pprof.StopCPUProfile()
	winners, split, err := t.contest(ctx, next, contested)
	if err != nil {
		return err
	}
	if split > 0 {
		return fmt.Errorf("%d of %d contested entries differ between the nodes", split, contested)
	}
	for range o.rounds {
		s, err := t.snapshots(ctx, atRest, 2*time.Second)
		if err != nil {
			return err
		}
		say("snapshot, table at rest: commits p50 %.1f max %.1f ms before, p50 %.1f p99 %.1f max %.1f ms during; took %.0f ms",
			s.Before.P50Ms, s.Before.MaxMs, s.During.P50Ms, s.During.P99Ms, s.During.MaxMs, s.TookMs)
		r.Snapshots = append(r.Snapshots, s)
	}
	start := time.Now()
	if err := t.stop(); err != nil {
		return err
	}
	r.Restart = Restart{Entries: o.size, Contested: contested, StopMs: millis(time.Since(start))}
	start = time.Now()
	if err := t.restart(ctx); err != nil {
		return err
	}
	r.Restart.OpenMs = millis(time.Since(start))
	r.Restart.Wrong = t.verify(0, next) + t.differ(next, winners)
	if n := t.entries(); n != [3]int{o.size, o.size, o.size} {
		return fmt.Errorf("after the restart the nodes have %d entries, %d each were there before", n, o.size)
	}
	say("restart: stopped in %.0f ms, back in %.0f ms, %d entries wrong", r.Restart.StopMs, r.Restart.OpenMs, r.Restart.Wrong)
	if r.Restart.Wrong > 0 {
		return fmt.Errorf("after the restart %d entries are missing or differ", r.Restart.Wrong)
	}
	// Last, because what is new evicts what is old from the full table.
	for range o.rounds {
		s, err := t.snapshotsUnderLoad(ctx, o.size, o.rate)
		if err != nil {
			return err
		}
		say("snapshot, %d/s learned: commits p50 %.1f max %.1f ms before, p50 %.1f p99 %.1f max %.1f ms during; took %.0f ms",
			o.rate, s.Before.P50Ms, s.Before.MaxMs, s.During.P50Ms, s.During.P99Ms, s.During.MaxMs, s.TookMs)
		r.Snapshots = append(r.Snapshots, s)
	}
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// configText is a configuration with one sticky table.
func configText(size int) string {
	return fmt.Sprintf(`backend %q {
  sticky "table" {
    key  = header["x-client"]
    ttl  = "24h"
    size = %d
  }
  server "s1" { address = "127.0.0.1:9" }
}

frontend "web" {
  bind    = ["127.0.0.1"]
  http    = 8080
  backend = %[1]q
}
`, backend, size)
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

func write(dir string, r *Report, text string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "raw.json"), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "table.txt"), []byte(text), 0o644),
	)
}
