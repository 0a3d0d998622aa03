package config

import "time"

// maxRate bounds a minimum rate. Who wants more than this of every client means something else.
const maxRate = 1 << 20

// minRate reads how fast a client must be, into what is inherited.
func (p *parser) minRate(b *body, r *MinRate) {
	m := b.plain("min_rate")
	if m == nil {
		return
	}
	m.kind = "min_rate"
	for _, d := range []struct {
		word string
		to   *int
	}{{"request", &r.Request}, {"response", &r.Response}} {
		if e := m.attr(d.word); e != nil {
			if n, ok := p.integer(e, quote(d.word), 0, maxRate); ok {
				*d.to = n
			}
		}
	}
	if e := m.attr("grace"); e != nil {
		if d, ok := p.duration(e, `"grace"`, 100*time.Millisecond, time.Hour); ok {
			r.Grace = d
		}
	}
	m.done()
}
