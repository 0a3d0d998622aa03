package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// document is what is kept: every run of every contender, raw. Medians can be worked out again, runs cannot.
type document struct {
	Kernel   string            `json:"kernel"`
	CPUs     int               `json:"cpus"`
	Versions map[string]string `json:"versions"` // by contender
	Cells    []*cell           `json:"cells"`
}

// cell is what one contender made of one scenario.
type cell struct {
	Scenario  string `json:"scenario"`
	Contender string `json:"contender"`
	Runs      []run  `json:"runs"`
}

const fileName = "compare"

// readDocument reads what was kept, if anything was.
func readDocument(dir string) (*document, error) {
	d := &document{Versions: map[string]string{}}
	text, err := os.ReadFile(filepath.Join(dir, fileName+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = json.Unmarshal(text, d)
	}
	if err != nil {
		return nil, fmt.Errorf("read the kept runs: %w", err)
	}
	return d, nil
}

func (d *document) cell(contender, key string) *cell {
	for _, c := range d.Cells {
		if c.Contender == contender && c.Scenario == key {
			return c
		}
	}
	return nil
}

func (d *document) count(contender, key string) int {
	if c := d.cell(contender, key); c != nil {
		return len(c.Runs)
	}
	return 0
}

// begin forgets what a contender did in another version or at another commit: figures of two programs make no median.
func (d *document) begin(contender string, v version) {
	stale := d.Versions[contender] != v.Name
	d.Versions[contender] = v.Name
	d.Cells = slices.DeleteFunc(d.Cells, func(c *cell) bool {
		return c.Contender == contender && (stale || slices.ContainsFunc(c.Runs, func(r run) bool { return r.Commit != v.Commit }))
	})
}

// forget drops the runs of a scenario.
func (d *document) forget(contender string, s *scenario) {
	d.Cells = slices.DeleteFunc(d.Cells, func(c *cell) bool {
		return c.Contender == contender && (c.Scenario == s.key || c.Scenario == s.back)
	})
}

func (d *document) add(contender, key string, r run) {
	c := d.cell(contender, key)
	if c == nil {
		c = &cell{Scenario: key, Contender: contender}
		d.Cells = append(d.Cells, c)
	}
	c.Runs = append(c.Runs, r)
}

// write writes the runs, the table and the picture, each whole or not at all.
func (d *document) write(dir string) error {
	d.Kernel, d.CPUs = kernel(), runtime.NumCPU()
	slices.SortStableFunc(d.Cells, func(a, b *cell) int {
		return cmp.Or(cmp.Compare(orderOf(a.Scenario), orderOf(b.Scenario)), cmp.Compare(rankOf(a.Contender), rankOf(b.Contender)))
	})
	raw, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	for ext, text := range map[string]string{".json": string(raw) + "\n", ".txt": d.table(), ".svg": d.picture()} {
		path := filepath.Join(dir, fileName+ext)
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

func orderOf(key string) int {
	return slices.IndexFunc(scenarios, func(s scenario) bool { return s.key == key })
}

func rankOf(contender string) int {
	return slices.IndexFunc(makers, func(m maker) bool { return m.name == contender })
}

// figures are a cell in a few numbers.
type figures struct {
	Runs, Never         int
	Median, P95, Max    float64 // ms of outage; of runs that were never served again: for how long they were watched
	Failed, Requests    int
	Active, Idle        float64 // connections lost per run
	Downloads           int     // lost
	TwoMedian, TwoMax   float64
	NoneMedian, NoneMax float64
	Moved               int // runs after which another host held the address
}

func (c *cell) figures() (f figures) {
	var outage, two, none []float64
	for _, r := range c.Runs {
		outage, two, none = append(outage, r.OutageMs), append(two, r.TwoMs), append(none, r.NoneMs)
		if r.Never {
			f.Never++
		}
		if r.Before != r.After {
			f.Moved++
		}
		if r.Download {
			f.Downloads++
		}
		f.Failed, f.Requests = f.Failed+r.Failed, f.Requests+r.Requests
		f.Active, f.Idle = f.Active+float64(r.Active), f.Idle+float64(r.Idle)
	}
	f.Runs = len(c.Runs)
	f.Active, f.Idle = f.Active/float64(f.Runs), f.Idle/float64(f.Runs)
	f.Median, f.P95, f.Max = quantile(outage, .5), quantile(outage, .95), quantile(outage, 1)
	f.TwoMedian, f.TwoMax = quantile(two, .5), quantile(two, 1)
	f.NoneMedian, f.NoneMax = quantile(none, .5), quantile(none, 1)
	return f
}

// quantile is the least of the values that so large a share of them does not exceed; of an even number the upper middle is the median.
func quantile(values []float64, share float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case share == .5:
		return sorted[n/2]
	}
	return sorted[max(0, int(math.Ceil(share*float64(n)))-1)]
}

// verdict holds skein's figures against its goal.
func (g goal) verdict(f figures) string {
	switch {
	case g == goal{}:
		return ""
	case f.Never > 0:
		return "missed"
	case g.Moves && f.Median > 0, !g.Moves && g.Median > 0 && f.Median > ms(g.Median), f.Max > ms(g.Max):
		return "missed"
	}
	return "met"
}

func (g goal) String() string {
	switch {
	case g == goal{}:
		return "-"
	case g.Moves:
		return fmt.Sprintf("0 / %.0f", ms(g.Max))
	case g.Median == 0:
		return fmt.Sprintf("- / %.0f", ms(g.Max))
	}
	return fmt.Sprintf("%.0f / %.0f", ms(g.Median), ms(g.Max))
}

// table is the document as a page of text.
func (d *document) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, `The same faults in the same lab: kernel %s, %d CPUs, hosts are network namespaces on one bridge.

A client opens a fresh connection every 5 ms, 250 ms for each request. Outage: the time in which it was not served, from a failed request
to the first whole answer of 20 good ones in a row, in milliseconds. "never": not served again within 8 s, or not before the fault ended; such
a run counts as long as it was watched. Lost: of 25 connections in use and 25 idle ones, and the share of runs whose download broke off
or stood still. Two, none: for how long more than one host answered a client's ARP, or none did. Every run is in compare.json, with
the load of the machine and for how long it stood still itself.

`, d.Kernel, d.CPUs)
	for _, m := range makers {
		if v := d.Versions[m.name]; v != "" {
			fmt.Fprintf(&b, "%-34s %s, %s\n", m.title, v, d.span(m.name))
		}
	}
	for i := range scenarios {
		s := &scenarios[i]
		if !slices.ContainsFunc(d.Cells, func(c *cell) bool { return c.Scenario == s.key }) {
			continue
		}
		fmt.Fprintf(&b, "\n%s (goal, median / longest: %v", strings.ToUpper(s.title[:1])+s.title[1:], s.goal)
		if d.cell("skein-tiebreak", s.key) != nil && !s.goal.Moves {
			fmt.Fprintf(&b, "; two hosts with a tie-break: %v", s.goalOf("skein-tiebreak"))
		}
		b.WriteString(")\n")
		fmt.Fprintf(&b, "  %-32s %4s %8s %8s %8s %6s %8s %13s %9s %15s %15s\n",
			"", "runs", "median", "p95", "longest", "never", "failed", "lost of 25+25", "downloads", "two: med, max", "none: med, max")
		for _, m := range makers {
			c := d.cell(m.name, s.key)
			if c == nil {
				continue
			}
			f := c.figures()
			verdict := s.goalOf(m.name).verdict(f)
			fmt.Fprintf(&b, "  %-32s %4d %8.1f %8.1f %8.1f %6d %7.1f%% %13s %8.0f%% %15s %15s  %s\n", m.title, f.Runs, f.Median, f.P95, f.Max, f.Never,
				100*float64(f.Failed)/float64(max(1, f.Requests)), fmt.Sprintf("%.1f + %.1f", f.Active, f.Idle), 100*float64(f.Downloads)/float64(f.Runs),
				fmt.Sprintf("%.0f, %.0f", f.TwoMedian, f.TwoMax), fmt.Sprintf("%.0f, %.0f", f.NoneMedian, f.NoneMax), verdict)
		}
	}
	return trailing.ReplaceAllString(b.String(), "")
}

var trailing = regexp.MustCompile(`(?m) +$`)

// span says when a contender was measured, at which commit, and how busy the machine was.
func (d *document) span(contender string) string {
	var first, last run
	lowest, highest := 1e9, 0.0
	for _, c := range d.Cells {
		if c.Contender != contender {
			continue
		}
		for _, r := range c.Runs {
			if first.At.IsZero() || r.At.Before(first.At) {
				first = r
			}
			if r.At.After(last.At) {
				last = r
			}
			var load float64
			fmt.Sscan(r.Load, &load)
			lowest, highest = min(lowest, load), max(highest, load)
		}
	}
	text := fmt.Sprintf("%s to %s UTC, load of the machine %.1f to %.1f", first.At.Format("2006-01-02 15:04"), last.At.Format("15:04"), lowest, highest)
	if last.Commit != "" {
		text = "commit " + last.Commit + ", " + text
	}
	return text
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
