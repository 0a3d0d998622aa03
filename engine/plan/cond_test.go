package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/skeinlb/skein/config"
)

// facts is a request in the simplest terms, for the evaluator that the compiled conditions are compared with.
type facts struct {
	method, host, path    string
	header, query, cookie map[string]string
	client                netip.Addr
}

func (f *facts) value(o config.Operand) string {
	v := ""
	switch o.Field {
	case config.FieldMethod:
		v = f.method
	case config.FieldHost:
		v = strings.ToLower(f.host)
	case config.FieldPath:
		v = f.path
	case config.FieldHeader:
		v = f.header[strings.ToLower(o.Name)]
	case config.FieldQuery:
		v = f.query[o.Name]
	case config.FieldCookie:
		v = f.cookie[o.Name]
	}
	if o.Lower {
		v = strings.ToLower(v)
	}
	return v
}

// eval is what a condition means.
func (f *facts) eval(c *config.Cond) bool {
	switch c.Op {
	case config.And:
		for _, a := range c.Args {
			if !f.eval(a) {
				return false
			}
		}
		return true
	case config.Or:
		for _, a := range c.Args {
			if f.eval(a) {
				return true
			}
		}
		return false
	case config.Not:
		return !f.eval(c.Args[0])
	case config.InCIDR:
		for _, p := range c.CIDRs {
			if p.Contains(f.client.Unmap()) {
				return true
			}
		}
		return false
	}
	if c.Left.Field == config.FieldClient {
		is := func(s string) bool { return netip.MustParseAddr(s).Unmap() == f.client.Unmap() }
		return c.Op == config.Equal && is(c.Value) || c.Op == config.OneOf && slices.ContainsFunc(c.Set, is)
	}
	v := f.value(c.Left)
	switch c.Op {
	case config.Equal:
		return v == c.Value
	case config.OneOf:
		return slices.Contains(c.Set, v)
	case config.StartsWith:
		return strings.HasPrefix(v, c.Value)
	case config.Matches:
		return c.Regex.MatchString(v)
	}
	panic("unknown operation")
}

var (
	words   = []string{"", "a", "A", "ab", "Ab", "b", "/a", "/a/b", "GET", "POST", "x y", "a+b", "ü"}
	names   = []string{"x-a", "X-B", "c"}
	clients = []string{"198.18.0.1", "198.18.1.1", "::ffff:198.18.0.1", "2001:db8::1", "203.0.113.7"}
	nets    = []string{"198.18.0.0/24", "198.18.0.0/15", "0.0.0.0/0", "2001:db8::/32", "::/0", "203.0.113.7/32", "198.18.0.1/32"}
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func some[T any](r *rand.Rand, of []T, n int) (out []T) {
	for range r.IntN(n) {
		out = append(out, pick(r, of))
	}
	return out
}

func randomCond(r *rand.Rand, depth int) *config.Cond {
	if depth > 0 && r.IntN(3) > 0 {
		c := &config.Cond{Op: pick(r, []config.CondOp{config.And, config.Or, config.Not})}
		n := 1
		if c.Op != config.Not {
			n += r.IntN(4)
		}
		for range n {
			c.Args = append(c.Args, randomCond(r, depth-1))
		}
		return c
	}
	if r.IntN(5) == 0 {
		c := &config.Cond{Left: config.Operand{Field: config.FieldClient}, Op: pick(r, []config.CondOp{config.Equal, config.OneOf, config.InCIDR})}
		c.Value = pick(r, clients)
		c.Set = some(r, clients, 4)
		for _, p := range some(r, nets, 6) {
			c.CIDRs = append(c.CIDRs, netip.MustParsePrefix(p))
		}
		return c
	}
	return &config.Cond{
		Op: pick(r, []config.CondOp{config.Equal, config.OneOf, config.StartsWith, config.Matches}),
		Left: config.Operand{Name: pick(r, names), Lower: r.IntN(3) == 0,
			Field: pick(r, []config.Field{config.FieldMethod, config.FieldHost, config.FieldPath, config.FieldHeader, config.FieldQuery, config.FieldCookie})},
		Value: pick(r, words),
		Set:   some(r, words, 12),
		Regex: pick(r, []*regexp.Regexp{regexp.MustCompile("^a"), regexp.MustCompile("[Bb]$"), regexp.MustCompile("x.y|^$")}),
	}
}

// Conditions compiled to closures say what a walk over the tree says, for many random trees and requests.
func TestCompiledConditionsAgreeWithTheirTree(t *testing.T) {
	for seed := range uint64(60) {
		checkConditions(t, seed)
	}
}

func FuzzConditions(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(checkConditions)
}

func checkConditions(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	c := randomCond(r, 3)
	compiled, err := compileCond(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	var s Scratch
	for range 20 {
		f := facts{
			method: pick(r, []string{"GET", "POST"}), host: pick(r, []string{"a", "Ab", "b"}), path: pick(r, []string{"/a", "/A", "/a/b"}),
			header: map[string]string{}, query: map[string]string{}, cookie: map[string]string{}, client: netip.MustParseAddr(pick(r, clients)),
		}
		var fields, queries []string
		for _, n := range some(r, names, 4) {
			v := pick(r, words)
			if _, twice := f.header[strings.ToLower(n)]; !twice { // the first of a name counts
				f.header[strings.ToLower(n)] = v
			}
			fields = append(fields, n+": "+v)
		}
		for _, n := range some(r, names, 4) {
			v := pick(r, words)
			if _, twice := f.query[n]; !twice {
				f.query[n] = v
			}
			queries = append(queries, n+"="+url.QueryEscape(v))
		}
		for _, n := range some(r, names, 4) {
			v := pick(r, []string{"", "a", "Ab"})
			if _, twice := f.cookie[n]; !twice {
				f.cookie[n] = v
			}
			fields = append(fields, "Cookie: z=1; "+n+"="+v)
		}
		q := request(t, f.method+" "+f.host+" "+f.path+"?"+strings.Join(queries, "&"), fields...)
		s.q, s.client, s.host = q, f.client.Unmap(), []byte(strings.ToLower(f.host))
		if got, want := compiled(&s), f.eval(c); got != want {
			t.Fatalf("seed %d: compiled says %v, the tree %v\n%s\n%+v", seed, got, want, show(c), f)
		}
	}
}

func show(c *config.Cond) string {
	if len(c.Args) > 0 {
		var args []string
		for _, a := range c.Args {
			args = append(args, show(a))
		}
		return fmt.Sprintf("%d(%s)", c.Op, strings.Join(args, ", "))
	}
	return fmt.Sprintf("%d%+v %q %q %v %v", c.Op, c.Left, c.Value, c.Set, c.CIDRs, c.Regex)
}

func TestRangesOfAddresses(t *testing.T) {
	var ps []netip.Prefix
	for _, p := range []string{"198.18.0.0/24", "198.18.0.128/25", "198.18.2.0/23", "2001:db8::/32", "::ffff:203.0.113.0/120", "198.18.0.0/25"} {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	r := newRanges(ps)
	if len(r) != 4 {
		t.Errorf("%d ranges, want 4: %v", len(r), r)
	}
	for addr, want := range map[string]bool{
		"198.18.0.0": true, "198.18.0.255": true, "198.18.1.0": false, "198.18.2.0": true, "198.18.3.255": true, "198.18.4.0": false,
		"198.17.255.255": false, "203.0.113.255": true, "203.0.114.0": false, "2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true,
		"2001:db9::": false, "::": false, "0.0.0.0": false,
	} {
		if got := r.contain(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

// Four conditions, as in the measurement that chose closures.
func BenchmarkConditions(b *testing.B) {
	and := &config.Cond{Op: config.And, Args: []*config.Cond{
		{Op: config.Equal, Left: config.Operand{Field: config.FieldHost}, Value: "api.example.com"},
		{Op: config.StartsWith, Left: config.Operand{Field: config.FieldPath}, Value: "/v1/"},
		{Op: config.Equal, Left: config.Operand{Field: config.FieldHeader, Name: "X-Canary"}, Value: "1"},
		{Op: config.Not, Args: []*config.Cond{{Op: config.Equal, Left: config.Operand{Field: config.FieldMethod}, Value: "POST"}}},
	}}
	t, err := compileCond(and, nil)
	if err != nil {
		b.Fatal(err)
	}
	s := Scratch{q: request(b, "GET api.example.com /v1/a", "User-Agent: x", "Accept: */*", "X-Canary: 1"), host: []byte("api.example.com")}
	b.ReportAllocs()
	for b.Loop() {
		if !t(&s) {
			b.Fatal("no match")
		}
	}
}
