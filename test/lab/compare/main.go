// Command compare plays what can go wrong, again and again, against skein, against keepalived with haproxy as people have it, and against
// the same tuned, in one lab, and writes down what a client saw of it.
//
// It is not a test of speed: it passes and fails nothing but prints who meets the goals; safety is tested beside it. The one rule: every
// contender gets the same network, servers, clients and faults, one after the other on a machine that does nothing else. Each run is kept,
// raw, with the commit and the load of the machine; a comparison that was interrupted goes on where it was.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
)

// options are what a comparison was asked for.
type options struct {
	contenders []string
	scenarios  []string // nil: all that are compared
	runs       int
	binary     string
	results    string
	overload   time.Duration
	draw, keep bool
	fresh      bool
}

func main() {
	if err := lab.Enter(); err != nil {
		fatal(err)
	}
	var o options
	var contenders, played string
	flag.StringVar(&contenders, "contenders", "skein,skein-witness,skein-tiebreak,keepalived,keepalived-tuned", "who plays, in this order")
	flag.StringVar(&played, "scenarios", "", "what is played, by key; empty: all that are compared (-list names them)")
	flag.IntVar(&o.runs, "runs", 20, "how often each scenario is played by each contender, those counted that are kept already")
	flag.StringVar(&o.binary, "binary", "bin/skein", "the skein to test")
	flag.StringVar(&o.results, "results", "test/lab/results", "directory of the figures")
	flag.DurationVar(&o.overload, "overload", 10*time.Minute, "how long the machine is overloaded while nothing is wrong")
	flag.BoolVar(&o.draw, "draw", false, "play nothing; write the table and the picture from the runs that are kept")
	flag.BoolVar(&o.keep, "keep", false, "keep data and logs of the contenders")
	flag.BoolVar(&o.fresh, "fresh", false, "forget the kept runs of what is played")
	list := flag.Bool("list", false, "name contenders and scenarios")
	flag.Parse()
	if *list {
		for _, m := range makers {
			fmt.Printf("%-18s %s\n", m.name, m.title)
		}
		fmt.Println()
		for _, s := range scenarios {
			fmt.Printf("%-18s %s\n", s.key, s.title)
		}
		return
	}
	o.contenders = strings.FieldsFunc(contenders, func(r rune) bool { return r == ',' || r == ' ' })
	o.scenarios = strings.FieldsFunc(played, func(r rune) bool { return r == ',' || r == ' ' })
	var err error
	if o.binary, err = filepath.Abs(o.binary); err != nil { // nodes are started from other directories
		fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := compare(ctx, o); err != nil {
		stop()
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintf(os.Stderr, "compare: %v\n", err)
	os.Exit(1)
}

// compare plays what is missing and writes the figures after each round.
func compare(ctx context.Context, o options) error {
	doc, err := readDocument(o.results)
	if err != nil {
		return err
	}
	for _, key := range o.scenarios {
		if scenarioOf(key) == nil {
			return fmt.Errorf("no scenario %q; -list names them", key)
		}
	}
	if !o.draw {
		for _, name := range o.contenders {
			m, err := makerOf(name)
			if err != nil {
				return err
			}
			if err := playAll(ctx, o, m, doc); err != nil {
				doc.write(o.results)
				return err
			}
		}
	}
	if err := doc.write(o.results); err != nil {
		return err
	}
	fmt.Printf("\n%s", doc.table())
	return nil
}

// due are the scenarios that a contender has to play; "return" comes with another one.
func (o options) due(m maker) (list []*scenario) {
	for i := range scenarios {
		s := &scenarios[i]
		switch {
		case s.do == nil, s.by != nil && !slices.Contains(s.by, m.name):
		case len(o.scenarios) > 0:
			if slices.Contains(o.scenarios, s.key) {
				list = append(list, s)
			}
		case s.more && m.name != "skein", (m.name == "skein-witness" || m.name == "skein-tiebreak") && !s.pair:
		default:
			list = append(list, s)
		}
	}
	return list
}

// playAll plays all scenarios in rounds, each once a round: what the machine does meanwhile falls upon all of them.
func playAll(ctx context.Context, o options, m maker, doc *document) error {
	var v *venue
	defer func() {
		if v != nil {
			v.Close()
		}
	}()
	version, err := m.version(o)
	if err != nil {
		return err
	}
	doc.begin(m.name, version)
	list := o.due(m)
	if o.fresh {
		for _, s := range list {
			doc.forget(m.name, s)
		}
	}
	begin, played, failures := time.Now(), 0, 0
	for {
		// The one that has been played least comes next.
		left := 0
		var next *scenario
		for _, s := range list {
			n := o.runs - doc.count(m.name, s.key)
			if s.once {
				n = 1 - doc.count(m.name, s.key)
			}
			if left += max(0, n); n > 0 && (next == nil || doc.count(m.name, s.key) < doc.count(m.name, next.key)) {
				next = s
			}
		}
		if next == nil {
			return nil
		}
		if v == nil {
			fmt.Printf("%s: boots\n", m.title)
			if v, err = open(ctx, o, m); err != nil {
				return err
			}
		}
		first, back, err := v.play(ctx, next)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			if failures++; failures > 5 {
				return err
			}
			fmt.Printf("%s: %v\n%s\n%s: starts again from nothing\n", m.title, err, v.logs(), m.title)
			v.Close()
			v = nil
			continue
		}
		played++
		eta := time.Since(begin) / time.Duration(played) * time.Duration(left-1)
		fmt.Printf("%-17s %-12s %s; %d to go, %v\n", m.name, next.key, first.run, left-1, eta.Round(time.Second))
		if first.Never {
			fmt.Printf("%s\n%s\n", first.timeline, v.logs())
		}
		doc.add(m.name, next.key, first.run)
		if back != nil {
			fmt.Printf("%-17s %-12s %s\n", m.name, next.back, back.run)
			doc.add(m.name, next.back, back.run)
		}
		if err := doc.write(o.results); err != nil {
			return err
		}
	}
}
