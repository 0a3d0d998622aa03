package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// balance reads the word for how servers are picked. A hash belongs to one backend: it needs a key.
func (p *parser) balance(b *body, to *Balance, backend bool) {
	e := b.attr("balance")
	if e == nil {
		return
	}
	if v, _, ok := p.literal(e); ok && v == Hash.String() && !backend {
		p.errorf(e.Range(), "write it in each backend, with its hash block", `balance = "hash" needs a key, which is a backend's own`)
		return
	}
	var words []string
	for w := RoundRobin; w <= Hash; w++ {
		if w != Hash || backend {
			words = append(words, w.String())
		}
	}
	if v, ok := p.oneOf(e, `"balance"`, words...); ok {
		*to = RoundRobin + Balance(slices.Index(words, v))
	}
}

// hash reads what requests are hashed by. Its bound of 1 would leave no room for a request too many.
func (p *parser) hash(b *body, be *Backend) {
	h := b.plain("hash")
	if be.Balance == SourceHash {
		be.HashKey = HashKey{Source: "client"}
	}
	if h == nil {
		if be.Balance == Hash {
			p.errorf(b.header, `write hash { key = path }, or client, uri, header["x"], cookie["x"], query["x"]`, `%s has balance = "hash" and no hash block`, b.what)
		}
		return
	}
	if e := h.attr("key"); e != nil {
		be.HashKey = p.hashKey(e)
		p.hashed = append(p.hashed, hashed{be, e.Range()})
	} else {
		p.errorf(h.header, `write key = client, key = path or key = header["x-user"]`, "%s has no key", h.what)
	}
	if e := h.attr("bound"); e != nil {
		be.HashBound, _ = p.decimal(e, `"bound"`, 1.01, 100)
	}
	h.done()
	if be.Balance != Hash {
		p.errorf(h.header, `write balance = "hash"`, "%s has no effect: balance is %q", h.what, be.Balance)
	}
}

// hashed is where a hash's key was written: what it looks at must be there in all of the backend's frontends.
type hashed struct {
	backend *Backend
	rng     hcl.Range
}

func (p *parser) hashKey(e hclsyntax.Expression) HashKey {
	const choice = `one of client, path, uri, header["x"], cookie["x"], query["x"]`
	if v, isString, _ := p.literal(e); isString {
		p.errorf(e.Range(), "write it without quotes: key = path", "%q is a string, not a part of a request", v)
		return HashKey{}
	}
	if hcl.ExprAsKeyword(unwrap(e)) == "uri" { // a word of keys alone: conditions look at the path and at each parameter
		return HashKey{Source: "uri"}
	}
	o, ok := p.operand(e)
	if !ok {
		return HashKey{}
	}
	switch o.Field {
	case FieldClient, FieldPath, FieldHeader, FieldCookie, FieldQuery:
		if !o.Lower {
			return HashKey{Source: o.Field.String(), Name: o.Name}
		}
	}
	p.errorf(e.Range(), choice, "%s cannot be the key of a hash", o)
	return HashKey{}
}

// The defaults of what keeps a backend on its feet.
const (
	retryAttempts = 2
	retryBudget   = 0.2 // of all requests: a backend that fails gets at most a fifth more of what it cannot do

	queueLength = 1024

	outlierFailures = 5
	outlierWindow   = 30 * time.Second
	outlierEject    = 10 * time.Second
	outlierShare    = 0.3
)

func (p *parser) readRetries(b *body, be *Backend) Retries {
	r := be.Retries
	c := b.plain("retries")
	if c == nil {
		return r
	}
	if e := c.attr("attempts"); e != nil {
		if n, ok := p.integer(e, `"attempts"`, 0, 10); ok {
			r.Attempts = n
		}
	}
	if e := c.attr("on"); e != nil {
		r.On = nil
		written := p.strs(e, `"on"`)
		for _, w := range RetryReasons {
			if slices.ContainsFunc(written, func(t text) bool { return t.string == w }) {
				r.On = append(r.On, w)
			}
		}
		for _, t := range written {
			if !slices.Contains(RetryReasons, t.string) {
				p.errorf(t.rng, didYouMean(t.string, RetryReasons, "one of"), "%q is no reason to try a request again", t.string)
			} else if t.string != "connect" {
				p.explicit = append(p.explicit, explicit{be, t.string, t.rng})
			}
		}
	}
	if e := c.attr("budget"); e != nil {
		if v, ok := p.decimal(e, `"budget"`, 0.001, 1); ok {
			r.Budget = v
		}
		p.explicit = append(p.explicit, explicit{be, "budget", c.nameRange("budget")})
	}
	c.done()
	return r
}

func (p *parser) queue(b *body, t BackendTimeouts) Queue {
	q := Queue{Length: queueLength, Timeout: t.Connect}
	c := b.plain("queue")
	if c == nil {
		return q
	}
	if e := c.attr("length"); e != nil {
		if n, ok := p.integer(e, `"length"`, 0, 1_000_000); ok {
			q.Length = n
		}
	}
	c.timeout("timeout", &q.Timeout)
	c.done()
	return q
}

// resilience reads what a backend does when its servers come, go, or misbehave.
func (p *parser) resilience(b *body, be *Backend) {
	if e := b.attr("max_requests"); e != nil {
		be.MaxRequests, _ = p.integer(e, `"max_requests"`, 1, 10_000_000)
	}
	if e := b.attr("slow_start"); e != nil {
		be.SlowStart, _ = p.duration(e, `"slow_start"`, 100*time.Millisecond, time.Hour)
	}
	if e := b.attr("minimum_healthy"); e != nil {
		be.MinHealthy, _ = p.decimal(e, `"minimum_healthy"`, 0.01, 1)
	}
	c := b.plain("outlier")
	if c == nil {
		return
	}
	o := &Outlier{Failures: outlierFailures, Window: outlierWindow, Eject: outlierEject, Share: outlierShare}
	if e := c.attr("failures"); e != nil {
		if n, ok := p.integer(e, `"failures"`, 1, 1000); ok {
			o.Failures = n
		}
	}
	if e := c.attr("window"); e != nil {
		if d, ok := p.duration(e, `"window"`, 100*time.Millisecond, time.Hour); ok {
			o.Window = d
		}
	}
	if e := c.attr("eject"); e != nil {
		if d, ok := p.duration(e, `"eject"`, 100*time.Millisecond, time.Hour); ok {
			o.Eject = d
		}
	}
	if e := c.attr("max_ejected"); e != nil {
		if v, ok := p.decimal(e, `"max_ejected"`, 0.01, 1); ok {
			o.Share = v
		}
	}
	c.done()
	be.Outlier = o
}

// decimal reads a number from low to high, which need not be whole.
func (s *source) decimal(e hclsyntax.Expression, what string, low, high float64) (float64, bool) {
	f, ok := number(e)
	if !ok {
		hint := ""
		if v, _, ok := s.literal(e); ok {
			if n, err := strconv.ParseFloat(strings.TrimSuffix(v, "%"), 64); err == nil && strings.HasSuffix(v, "%") {
				hint = "write it as a part of 1: " + short(n/100)
			} else if err == nil {
				hint = "write it without quotes: " + v
			}
		}
		s.errorf(e.Range(), hint, "%s wants a number, not %s", what, describe(e))
		return 0, false
	}
	v, _ := f.Float64()
	if v < low || v > high {
		hint := ""
		if p := v / 100; high == 1 && p >= low && p <= high {
			hint = fmt.Sprintf("%s %% is %s", short(v), short(p))
		}
		s.errorf(e.Range(), hint, "%s must be from %s to %s, not %s", what, short(low), short(high), e.Range().SliceBytes(s.src))
		return 0, false
	}
	return v, true
}

func short(v float64) string { return fmt.Sprintf("%g", v) }
