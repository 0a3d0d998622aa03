package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// figures are what a run of the rows leaves.
type figures struct {
	Machine *machine `json:"machine"`
	Rows    []result `json:"rows"`
	Rounds  []sample `json:"rounds"`
}

// result is what came of a row.
type result struct {
	Row     string          `json:"row"`
	Conns   int             `json:"connections"`
	Goal    goal            `json:"goal"`
	Proxies map[string]side `json:"proxies"`
	Met     bool            `json:"met"`
	Missed  []string        `json:"missed,omitempty"`
}

// side is one proxy in a row. Ratios are to HAProxy in the same round.
type side struct {
	Us       spread `json:"cpu_us"` // per request
	Rate     spread `json:"rate"`
	P50us    spread `json:"p50_us"` // at the fixed rate
	P99us    spread `json:"p99_us"`
	Errors   uint64 `json:"errors,omitempty"`
	Late     uint64 `json:"late,omitempty"`
	Unlogged uint64 `json:"unlogged,omitempty"`
	Busy     spread `json:"busy"` // processors that it used in a closed loop: below 1, something else was the bound

	CPURatio  spread `json:"cpu_ratio"`
	RateRatio spread `json:"rate_ratio"`
	P99Ratio  spread `json:"p99_ratio"`
}

// judge makes a row's result of its rounds.
func judge(name string, conns int, g goal, all []sample) result {
	r := result{Row: name, Conns: conns, Goal: g, Proxies: map[string]side{}}
	p50, p99 := func(s *sample) float64 { return s.P50us }, func(s *sample) float64 { return s.P99us }
	for _, proxy := range []string{"haproxy", "skein", "nginx"} {
		ratio := func(kind string, f func(*sample) float64) spread {
			v := pick(all, proxy, kind, f)
			for i, of := range pick(all, "haproxy", kind, f) {
				v[i] /= of
			}
			return spreadOf(v)
		}
		s := side{
			Us: spreadOf(pick(all, proxy, "closed", (*sample).us)), Rate: spreadOf(pick(all, proxy, "closed", (*sample).perSecond)),
			P50us: spreadOf(pick(all, proxy, "fixed", p50)), P99us: spreadOf(pick(all, proxy, "fixed", p99)),
			Busy:     spreadOf(pick(all, proxy, "closed", func(s *sample) float64 { return s.CPU["proxy"] / s.Seconds })),
			CPURatio: ratio("closed", (*sample).us), RateRatio: ratio("closed", (*sample).perSecond), P99Ratio: ratio("fixed", p99),
		}
		for _, x := range all {
			if x.Proxy == proxy {
				s.Errors, s.Late, s.Unlogged = s.Errors+x.Errors, s.Late+x.Late, s.Unlogged+x.Unlogged
			}
		}
		r.Proxies[proxy] = s
	}
	h, s := r.Proxies["haproxy"], r.Proxies["skein"]
	miss := func(missed bool, what string) {
		if missed {
			r.Missed = append(r.Missed, what)
		}
	}
	ratio := func(what string, v spread, goal float64, missed bool) {
		if goal > 0 && missed {
			if v.Q1 <= goal && goal <= v.Q3 {
				what += inSpread
			}
			miss(true, what)
		}
	}
	// Two digits, as goals have them: 0.704 is 0.70.
	ratio("CPU", s.CPURatio, g.CPU, s.CPURatio.Median > g.CPU+.005)
	rate := "rate"
	if s.Busy.Median < min(h.Busy.Median, atWork) {
		rate = fmt.Sprintf("rate (the load's: skein used %.2f of its processor, HAProxy %.2f)", s.Busy.Median, h.Busy.Median)
	}
	ratio(rate, s.RateRatio, g.Rate, s.RateRatio.Median < g.Rate-.005)
	ratio("p99", s.P99Ratio, g.P99, s.P99Ratio.Median > g.P99+.005)
	miss(s.Errors+s.Late > 0, "errors")
	miss(s.Unlogged > 0, "log lines")
	r.Met = len(r.Missed) == 0 && g != goal{}
	return r
}

// atWork is how much of its processor a proxy uses at least where it is the bound of a closed loop.
const atWork = .9

// inSpread marks a goal that the median misses and that lies within the middle half of the rounds.
const inSpread = " within its spread"

// near reports whether the row misses its goals within their spread only.
func (r result) near() bool {
	return len(r.Missed) > 0 && !slices.ContainsFunc(r.Missed, func(m string) bool { return !strings.HasSuffix(m, inSpread) })
}

const tableHead = "| case | conns | HAProxy CPU us | skein: CPU ratio (goal) | rate ratio (goal) | p99 ratio (goal) | nginx: CPU, rate, p99 | p50 us: skein, HAProxy, nginx | p99 us | verdict |\n" +
	"|---|---|---|---|---|---|---|---|---|---|\n"

func (r result) line() string {
	h, s, n := r.Proxies["haproxy"], r.Proxies["skein"], r.Proxies["nginx"]
	cell := func(v spread, sign string, goal float64) string {
		if v.Median == 0 {
			return "-"
		}
		c := fmt.Sprintf("**%.2f** [%.2f..%.2f]", v.Median, v.Q1, v.Q3)
		if goal > 0 {
			c += fmt.Sprintf(" (%s %.2f)", sign, goal)
		}
		return c
	}
	verdict := "met"
	switch {
	case len(r.Missed) > 0:
		verdict = "missed: " + strings.Join(r.Missed, ", ")
	case r.Goal == goal{}:
		verdict = "reported"
	}
	list := func(format string, v ...float64) string {
		var cells []string
		for _, x := range v {
			if x == 0 { // not measured
				cells = append(cells, "-")
				continue
			}
			cells = append(cells, fmt.Sprintf(format, x))
		}
		return strings.Join(cells, ", ")
	}
	return fmt.Sprintf("| %s | %d | %.2f | %s | %s | %s | %s | %s | %s | %s |\n", r.Row, r.Conns, h.Us.Median,
		cell(s.CPURatio, "<=", r.Goal.CPU), cell(s.RateRatio, ">=", r.Goal.Rate), cell(s.P99Ratio, "<=", r.Goal.P99),
		list("%.2f", n.CPURatio.Median, n.RateRatio.Median, n.P99Ratio.Median),
		list("%.0f", s.P50us.Median, h.P50us.Median, n.P50us.Median), list("%.0f", s.P99us.Median, h.P99us.Median, n.P99us.Median), verdict)
}

// verdict sums up.
func (f figures) verdict() string {
	met, near, of := 0, 0, 0
	var missed []string
	for _, r := range f.Rows {
		if (r.Goal == goal{}) {
			continue
		}
		if of++; r.Met {
			met++
			continue
		}
		if r.near() {
			near++
		}
		missed = append(missed, fmt.Sprintf("%s at %d (%s)", r.Row, r.Conns, strings.Join(r.Missed, ", ")))
	}
	text := fmt.Sprintf("%d of %d rows meet their goals.", met, of)
	if near > 0 {
		text = fmt.Sprintf("%d of %d rows meet their goals, %d more miss them within the spread of the rounds.", met, of, near)
	}
	if len(missed) > 0 {
		text += " Missed: " + strings.Join(missed, "; ") + "."
	}
	return text
}

// redraw writes the page and the pictures from the figures in a directory.
func redraw(dir string) error {
	if dir == "" {
		return nil
	}
	var f figures
	var c curves
	var i idleFigures
	for name, v := range map[string]any{"bench.json": &f, "scale.json": &c, "idle.json": &i} {
		if err := read(dir, name, v); err != nil {
			return err
		}
	}
	files := map[string]string{"README.md": page(f, c, i)}
	if f.Machine != nil {
		files["bench.svg"] = drawRatios(f)
	}
	if c.Machine != nil {
		files["scale.svg"] = drawCurves(c)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// page is the text beside the figures.
func page(f figures, c curves, i idleFigures) string {
	var b strings.Builder
	b.WriteString("# skein beside HAProxy and nginx\n\nWritten by the benchmark; [docs/performance.md](../../../docs/performance.md) says how it measures and what the figures mean.\n")
	if f.Machine != nil {
		fmt.Fprintf(&b, "\n%s\n\n![CPU per request as a share of HAProxy's](bench.svg)\n\n", f.verdict())
		b.WriteString("Ratios are medians over the rounds of skein's figure by HAProxy's in the same round, with the middle half of the rounds in brackets. CPU is\n" +
			"processor time of all processes per request; the rate is in a closed loop; p50 and p99 are at 60 % of HAProxy's rate. Raw rounds: bench.json.\n\n")
		b.WriteString(tableHead)
		for _, r := range f.Rows {
			b.WriteString(r.line())
		}
		fmt.Fprintf(&b, "\n%v\n", f.Machine)
	}
	if i.Machine != nil {
		fmt.Fprintf(&b, "\n## Idle connections\n\n%s\n%v\n", i.table(), i.Machine)
	}
	if c.Machine != nil {
		fmt.Fprintf(&b, "\n## Scale\n\n![cost per request over connections, routes and servers](scale.svg)\n\n%s\n%v\n", c.table(), c.Machine)
	}
	return b.String()
}

// progress is a line that shows what is being done, on a terminal only.
type progress struct {
	begun    time.Time
	done, of int
	width    int
	quiet    bool
}

func newProgress(of int) *progress {
	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	return &progress{begun: time.Now(), of: of, quiet: err != nil}
}

func (p *progress) show(format string, args ...any) {
	if p.quiet {
		return
	}
	text := fmt.Sprintf("[%d/%d, %v] ", p.done+1, p.of, time.Since(p.begun).Round(time.Second)) + fmt.Sprintf(format, args...)
	fmt.Fprintf(os.Stderr, "\r%-*s", p.width, text)
	p.width = max(p.width, len(text))
}

// clear takes the line away, so that something can be printed.
func (p *progress) clear() {
	if !p.quiet {
		fmt.Fprintf(os.Stderr, "\r%*s\r", p.width, "")
	}
}
