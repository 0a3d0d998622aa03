package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// svg is a picture that grows. It follows the reader's choice of light or dark.
type svg struct {
	strings.Builder
}

const svgStyle = `  <style>
    text     { fill: #1f2328 }
    .soft    { fill: #59636e; font-size: 12px }
    .name    { font-weight: 600 }
    .axis    { stroke: #8c959f; stroke-width: 1; fill: none }
    .grid    { stroke: #d1d9e0; stroke-width: 1; fill: none }
    .one     { stroke: #57606a; stroke-width: 1.5; fill: none }
    .goal    { stroke: #1f2328; stroke-width: 2.5; fill: none }
    .range   { stroke: #1f2328; stroke-width: 1; fill: none; opacity: .55 }
    .met     { fill: #1a7f37 }
    .missed  { fill: #bf8700 }
    .plain   { fill: #0969da }
    .nginx   { fill: #8c959f }
    .c-skein   { stroke: #1a7f37; stroke-width: 2.5; fill: none }
    .c-haproxy { stroke: #57606a; stroke-width: 1.8; fill: none }
    .c-nginx   { stroke: #a1a9b2; stroke-width: 1.8; fill: none; stroke-dasharray: 5 4 }
    .d-skein   { fill: #1a7f37 }
    .d-haproxy { fill: #57606a }
    .d-nginx   { fill: #8c959f }
    @media (prefers-color-scheme: dark) {
      text     { fill: #f0f6fc }
      .soft    { fill: #9198a1 }
      .axis    { stroke: #656c76 }
      .grid    { stroke: #2f353d }
      .one     { stroke: #9198a1 }
      .goal, .range { stroke: #f0f6fc }
      .met     { fill: #3fb950 }
      .missed  { fill: #d29922 }
      .plain   { fill: #4493f8 }
      .nginx   { fill: #656c76 }
      .c-skein   { stroke: #3fb950 }
      .c-haproxy { stroke: #9198a1 }
      .c-nginx   { stroke: #656c76 }
      .d-skein   { fill: #3fb950 }
      .d-haproxy { fill: #9198a1 }
      .d-nginx   { fill: #656c76 }
    }
  </style>
`

func newSVG(width, height int, title string) *svg {
	s := &svg{}
	s.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" role="img" font-family="ui-sans-serif, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="14">`, width, height)
	s.add("  <title>%s</title>", html.EscapeString(title))
	s.WriteString(svgStyle)
	return s
}

func (s *svg) add(format string, args ...any) { fmt.Fprintf(&s.Builder, format+"\n", args...) }

func (s *svg) text(x, y float64, class, anchor, text string) {
	s.add(`  <text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(text))
}

func (s *svg) line(x1, y1, x2, y2 float64, class string) {
	s.add(`  <line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

func (s *svg) bar(x, y, w, h float64, class string) {
	s.add(`  <rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5" class="%s"/>`, x, y, max(w, .5), h, class)
}

func (s *svg) done() string { return s.String() + "</svg>\n" }

// panel is one of the three ratios.
type panel struct {
	title, hint string
	of          func(side) spread
	goal        func(goal) float64
	met         func(ratio, goal float64) bool
}

var panels = []panel{
	{"CPU per request", "less is better", func(s side) spread { return s.CPURatio }, func(g goal) float64 { return g.CPU }, atMost},
	{"Rate, closed loop", "more is better", func(s side) spread { return s.RateRatio }, func(g goal) float64 { return g.Rate },
		func(ratio, goal float64) bool { return ratio >= goal-.005 }},
	{"p99 at 60 % of HAProxy's rate", "less is better", func(s side) spread { return s.P99Ratio }, func(g goal) float64 { return g.P99 }, atMost},
}

func atMost(ratio, goal float64) bool { return ratio <= goal+.005 }

// drawRatios draws a bar per row and ratio: skein's with the middle half of its rounds and its goal, and nginx's thin below it.
func drawRatios(f figures) string {
	const (
		left, top        = 250.0, 92.0
		step, gap, width = 30.0, 72.0, 215.0 // the gap holds the panel's figures
		most             = 1.75              // ratios beyond it end in an arrow
	)
	height := top + step*float64(len(f.Rows)) + 46
	s := newSVG(int(left+3*(width+gap)), int(height), "skein and nginx as a share of HAProxy")
	s.text(16, 28, "name", "start", "As a share of HAProxy's figure in the same round")
	legend := []struct{ class, text string }{{"met", "skein, goal met"}, {"missed", "goal missed"}, {"plain", "no goal"}, {"nginx", "nginx"}}
	x := 470.0
	for _, l := range legend {
		s.bar(x, 19, 14, 10, l.class)
		s.text(x+19, 28, "soft", "start", l.text)
		x += 36 + 6.3*float64(len(l.text))
	}
	s.line(x+4, 17, x+4, 31, "goal")
	s.text(x+12, 28, "soft", "start", "goal")
	for i, p := range panels {
		x0 := left + float64(i)*(width+gap)
		at := func(v float64) float64 { return x0 + min(v, most)/most*width }
		s.text(x0, 60, "name", "start", p.title)
		s.text(x0, 77, "soft", "start", p.hint)
		bottom := top + step*float64(len(f.Rows))
		for _, v := range []float64{0, .5, 1.5} {
			s.line(at(v), top-4, at(v), bottom, "grid")
			s.text(at(v), bottom+16, "soft", "middle", fmt.Sprintf("%.1f", v))
		}
		s.line(at(1), top-4, at(1), bottom, "one")
		s.text(at(1), bottom+16, "soft", "middle", "HAProxy")
		for j, r := range f.Rows {
			y := top + step*float64(j)
			skein, nginx, goal := p.of(r.Proxies["skein"]), p.of(r.Proxies["nginx"]), p.goal(r.Goal)
			if skein.Median == 0 {
				continue
			}
			class := "plain"
			if goal > 0 {
				class = "missed"
				if p.met(skein.Median, goal) {
					class = "met"
				}
			}
			s.bar(x0, y+3, at(skein.Median)-x0, 13, class)
			s.bar(x0, y+18, at(nginx.Median)-x0, 4, "nginx")
			s.line(at(skein.Q1), y+9.5, at(skein.Q3), y+9.5, "range")
			if goal > 0 {
				s.line(at(goal), y, at(goal), y+19, "goal")
			}
			label := fmt.Sprintf("%.2f", skein.Median)
			if skein.Median > most {
				label += " \u2192"
			}
			s.text(x0+width+9, y+14, "soft", "start", label)
		}
	}
	for j, r := range f.Rows {
		s.text(left-10, top+step*float64(j)+14, "", "end", fmt.Sprintf("%s : %d", r.Row, r.Conns))
	}
	s.text(16, height-10, "soft", "start", "Medians of all rounds; the thin line over a bar is the middle half of them. The number behind a name: connections.")
	return s.done()
}

// drawCurves draws a plot per curve, over a logarithmic axis.
func drawCurves(c curves) string {
	const (
		w, h             = 400.0, 210.0
		left, top        = 56.0, 70.0
		across, down     = 520.0, 330.0
		width, perColumn = 1060, 2
	)
	lines := (len(c.Curves) + perColumn - 1) / perColumn
	s := newSVG(width, int(top+down*float64(lines)), "cost per request as something grows")
	s.text(16, 28, "name", "start", "CPU time per request, in microseconds")
	for i, p := range []struct{ proxy, name string }{{"skein", "skein"}, {"haproxy", "HAProxy"}, {"nginx", "nginx"}} {
		x := 420 + 110*float64(i)
		s.line(x, 24, x+26, 24, "c-"+p.proxy)
		s.text(x+32, 28, "soft", "start", p.name)
	}
	for i, line := range c.Curves {
		x0, y0 := left+across*float64(i%perColumn), top+down*float64(i/perColumn)
		most := 0.0
		for _, p := range line.Points {
			for _, v := range p.Us {
				most = max(most, v.Q3)
			}
		}
		unit := niceStep(most / 4)
		most = math.Ceil(most*1.05/unit) * unit
		span := math.Log(float64(line.Points[len(line.Points)-1].X)) - math.Log(float64(line.Points[0].X))
		at := func(x int, us float64) (float64, float64) {
			share := .5
			if span > 0 {
				share = (math.Log(float64(x)) - math.Log(float64(line.Points[0].X))) / span
			}
			return x0 + 12 + share*(w-24), y0 + h - us/most*h
		}
		s.text(x0, y0-12, "name", "start", strings.ToUpper(line.Name[:1])+line.Name[1:])
		for v := 0.0; v <= most+unit/2; v += unit {
			y := y0 + h - v/most*h
			s.line(x0, y, x0+w, y, "grid")
			s.text(x0-8, y+4, "soft", "end", fmt.Sprintf("%g", v))
		}
		s.line(x0, y0+h, x0+w, y0+h, "axis")
		for j, p := range line.Points {
			x, _ := at(p.X, 0)
			s.line(x, y0+h, x, y0+h+4, "axis")
			if j+1 < len(line.Points) {
				if next, _ := at(line.Points[j+1].X, 0); next-x < 44 { // no room for both labels
					continue
				}
			}
			s.text(x, y0+h+18, "soft", "middle", thousands(p.X))
		}
		s.text(x0+w/2, y0+h+38, "soft", "middle", line.Axis)
		for _, proxy := range []string{"nginx", "haproxy", "skein"} {
			var path []string
			for _, p := range line.Points {
				x, y := at(p.X, p.Us[proxy].Median)
				path = append(path, fmt.Sprintf("%.1f,%.1f", x, y))
			}
			s.add(`  <polyline points="%s" class="c-%s"/>`, strings.Join(path, " "), proxy)
			for _, p := range line.Points {
				x, y := at(p.X, p.Us[proxy].Median)
				s.add(`  <circle cx="%.1f" cy="%.1f" r="3" class="d-%s"/>`, x, y, proxy)
			}
		}
	}
	return s.done()
}

// niceStep is the least of 1, 2, 5, 10, 20, ... that is not below v.
func niceStep(v float64) float64 {
	ten := math.Pow(10, math.Floor(math.Log10(max(v, 1e-9))))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*ten {
			return m * ten
		}
	}
	return 10 * ten
}

func thousands(n int) string {
	if n >= 1000 {
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprint(n)
}
