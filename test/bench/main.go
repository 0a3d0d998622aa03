// Command bench measures skein beside Debian's HAProxy and nginx on this machine, in one run, with the same load and the same
// server, and holds the ratios against the goals that skein has set itself.
//
// The proxy under test has a processor for itself; the server and the load share another. CPU time of all of a proxy's processes per
// answer is the figure that counts: on one machine the rate is soon bound by the load. Rounds go A B C, B C A, C A B. It is not a
// test: it passes and fails nothing but says which goals are met. docs/performance.md explains the method.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// options are what a run was asked for.
type options struct {
	rows   *regexp.Regexp
	rounds int
	length time.Duration // of a round's counted part, in a closed loop
	skein  string
	out    string
	busy   bool
	what   string
}

func main() {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			finish(role(os.Args[2:]))
		}
	}
	var o options
	rows := flag.String("rows", "", "measure only rows whose name matches this regular expression")
	flag.IntVar(&o.rounds, "rounds", 9, "rounds of every proxy in every row, of each kind")
	flag.DurationVar(&o.length, "length", 1200*time.Millisecond, "how long a round counts")
	flag.StringVar(&o.skein, "skein", "bin/skein", "the binary to measure")
	flag.StringVar(&o.out, "out", "test/bench/results", "directory for figures, table and pictures; empty: write nothing")
	flag.BoolVar(&o.busy, "busy", false, "measure and write although the machine is not quiet; the results say so")
	scale := flag.Bool("scale", false, "measure the cost per request over connections, routes and servers instead")
	idle := flag.Bool("idle", false, "measure the memory of idle connections only")
	draw := flag.Bool("draw", false, "measure nothing; draw the pictures and tables anew from the figures in -out")
	flag.Parse()
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		finish(fmt.Errorf("-rows: %w", err))
	}
	if o.rounds < 1 || o.length < 100*time.Millisecond || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	switch {
	case *draw:
		finish(redraw(o.out))
	case *scale:
		o.what = "scale"
	case *idle:
		o.what = "idle"
	default:
		o.what = "rows"
	}
	if !inside() {
		os.Exit(enter())
	}
	finish(run(o))
}

func finish(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(o options) error {
	made, err := newMachine(o)
	if err != nil {
		return err
	}
	s, err := newStage(o.skein)
	if err != nil {
		return err
	}
	defer s.close()
	switch o.what {
	case "scale":
		return runScale(s, o, made)
	case "idle":
		return runIdle(s, o, made)
	}
	if err := runRows(s, o, made); err != nil {
		return err
	}
	if o.rows.String() == "" {
		return runIdle(s, o, made)
	}
	return nil
}

// write puts figures beside the others, if they are to be written at all.
func (o options) write(name string, v any) error {
	if o.out == "" {
		return nil
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, name), append(b, '\n'), 0o644)
}

// read takes figures that were written. A file that is not there leaves v as it is.
func read(dir, name string, v any) error {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
