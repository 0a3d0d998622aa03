package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The picture has a strip per contender and scenario, with a dot for each run, over a logarithmic axis of the client's outage.
const (
	left, top     = 292.0, 92.0
	width         = 560.0
	strip, gap    = 15.0, 15.0
	zero, never   = 64.0, 76.0 // room for runs without a failure, and for those that were never served again
	lowest, upper = 1.0, 1e4   // ms
)

const style = `  <style>
    text   { fill: #1f2328 }
    .soft  { fill: #59636e; font-size: 12px }
    .name  { font-weight: 600 }
    .grid  { stroke: #d1d9e0; stroke-width: 1 }
    .goal  { stroke: #1f2328; stroke-width: 2 }
    .band  { fill: #818b98; opacity: .09 }
    .c-skein            { fill: #1a7f37; stroke: #1a7f37 }
    .c-skein-witness    { fill: #0969da; stroke: #0969da }
    .c-skein-tiebreak   { fill: #8250df; stroke: #8250df }
    .c-keepalived       { fill: #bc4c00; stroke: #bc4c00 }
    .c-keepalived-tuned { fill: #9a6700; stroke: #9a6700 }
    .dot    { fill-opacity: .35; stroke: none }
    .middle { stroke-width: 2.5 }
    @media (prefers-color-scheme: dark) {
      text   { fill: #f0f6fc }
      .soft  { fill: #9198a1 }
      .grid  { stroke: #2f353d }
      .goal  { stroke: #f0f6fc }
      .c-skein            { fill: #3fb950; stroke: #3fb950 }
      .c-skein-witness    { fill: #4493f8; stroke: #4493f8 }
      .c-skein-tiebreak   { fill: #ab7df8; stroke: #ab7df8 }
      .c-keepalived       { fill: #f0883e; stroke: #f0883e }
      .c-keepalived-tuned { fill: #d29922; stroke: #d29922 }
    }
  </style>
`

// at is where an outage stands on the axis.
func at(ms float64) float64 {
	if ms < lowest {
		return left + zero/2
	}
	share := math.Log(min(ms, upper)/lowest) / math.Log(upper/lowest)
	return left + zero + share*(width-zero-never)
}

// picture draws the outages.
func (d *document) picture() string {
	type row struct {
		s     *scenario
		cells []*cell
	}
	var rows []row
	height := top
	for i := range scenarios {
		r := row{s: &scenarios[i]}
		for _, m := range makers {
			if c := d.cell(m.name, r.s.key); c != nil {
				r.cells = append(r.cells, c)
			}
		}
		if len(r.cells) > 0 {
			rows = append(rows, r)
			height += strip*float64(len(r.cells)) + gap
		}
	}
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	text := func(x, y float64, class, anchor, s string) {
		add(`  <text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(s))
	}
	total := left + width + 256
	add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]g %[2]g" width="%[1]g" height="%[2]g" role="img" `+
		`font-family="ui-sans-serif, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="13">`, total, height+44)
	add("  <title>For how long clients were not served, by fault and contender</title>")
	b.WriteString(style)
	text(16, 26, "name", "start", "For how long clients were not served")
	x := 16.0
	for _, m := range makers {
		if d.Versions[m.name] == "" {
			continue
		}
		add(`  <circle cx="%.1f" cy="46" r="5" class="c-%s"/>`, x+5, m.name)
		text(x+15, 50, "soft", "start", m.title)
		x += 40 + 6.3*float64(len(m.title))
	}
	add(`  <line x1="%[1]g" y1="15" x2="%[1]g" y2="29" class="goal"/>`, left+20)
	text(left+28, 26, "soft", "start", "goal of skein, longest")
	for _, tick := range []struct {
		ms   float64
		name string
	}{{0, "0"}, {1, "1 ms"}, {10, "10 ms"}, {100, "0.1 s"}, {1000, "1 s"}, {10000, "10 s"}} {
		add(`  <line x1="%[1]g" y1="%[2]g" x2="%[1]g" y2="%[3]g" class="grid"/>`, at(tick.ms), top-10, height)
		text(at(tick.ms), top-16, "soft", "middle", tick.name)
		text(at(tick.ms), height+16, "soft", "middle", tick.name)
	}
	text(left+width-never/3, top-16, "soft", "middle", "never")
	text(left+width+14, top-16, "soft", "start", "median, longest; lost of 50")
	y := top
	for i, r := range rows {
		tall := strip * float64(len(r.cells))
		if i%2 == 0 {
			add(`  <rect x="8" y="%.1f" width="%.1f" height="%.1f" class="band"/>`, y-gap/2, total-16, tall+gap)
		}
		for j, line := range wrap(r.s.title, 42) {
			text(16, y+11+15*float64(j), "", "start", line)
		}
		for j, c := range r.cells {
			f, middle := c.figures(), y+strip*float64(j)+strip/2
			for k, one := range c.Runs {
				// Runs of the same length must not hide one another.
				dy := float64(k%5-2) * 1.6
				x := at(one.OutageMs)
				if one.Never {
					x = left + width - never/3 + float64(k%7-3)*2
				}
				add(`  <circle cx="%.1f" cy="%.1f" r="3.2" class="dot c-%s"/>`, x, middle+dy, c.Contender)
			}
			if g := r.s.goalOf(c.Contender); g.Max > 0 {
				add(`  <line x1="%.1[1]f" y1="%.1[2]f" x2="%.1[1]f" y2="%.1[3]f" class="goal"/>`, at(ms(g.Max)), middle-7.5, middle+7.5)
			}
			words := fmt.Sprintf("%s, %s", span(f.Median), span(f.Max))
			switch {
			case f.Never*2 > f.Runs:
				words = "never"
			default:
				add(`  <line x1="%.1[1]f" y1="%.1[2]f" x2="%.1[1]f" y2="%.1[3]f" class="middle c-%[4]s"/>`, at(f.Median), middle-6.5, middle+6.5, c.Contender)
				if f.Never > 0 {
					words = span(f.Median) + ", never"
				}
			}
			if f.TwoMax >= ms(r.s.two)+1 {
				words += ", two holders"
			}
			text(left+width+14, middle+4, "soft", "start", fmt.Sprintf("%s; %.0f", words, f.Active+f.Idle))
		}
		y += tall + gap
	}
	text(16, height+36, "soft", "start", "A dot is a run, the stroke the median. Outage: from a failed request to the first of 20 good answers in a row; a fresh connection every 5 ms.")
	return b.String() + "</svg>\n"
}

// span is an outage in few characters.
func span(ms float64) string {
	switch {
	case ms < 1:
		return "0"
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// wrap breaks a title at spaces.
func wrap(s string, most int) (lines []string) {
	for _, w := range strings.Fields(s) {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(w) <= most {
			lines[n-1] += " " + w
			continue
		}
		lines = append(lines, w)
	}
	return slices.Clip(lines)
}
