package plan

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/skeinlb/skein/engine/h1"
)

func compileLimit(t testing.TB, attrs string, old *Plan) (*Limit, *Plan) {
	p := compile(t, fmt.Sprintf(`
		limit "l" {
			%s
		}
		frontend "f" {
			bind  = ["127.0.0.1"]
			http  = 80
			limit = "l"
			route "r" {
				respond { status = 204 }
			}
		}`, attrs), old)
	return p.limits["l"], p
}

func TestARateIsABurstAndThenSteady(t *testing.T) {
	l, p := compileLimit(t, "rate = \"10/s\"\nburst = 3", nil)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	ms := func(n int) int64 { return int64(n) * int64(time.Millisecond) }
	for _, step := range []struct {
		at   int
		who  netip.Addr
		ok   bool
		wait time.Duration
	}{
		{1000, a, true, 0}, {1000, a, true, 0}, {1000, a, true, 0}, // the burst
		{1000, a, false, 100 * time.Millisecond},
		{1000, b, true, 0}, // another client's account
		{1060, a, false, 40 * time.Millisecond},
		{1100, a, true, 0}, // one each 100 ms
		{1100, a, false, 100 * time.Millisecond},
		{9000, a, true, 0}, {9000, a, true, 0}, {9000, a, true, 0}, {9000, a, false, 100 * time.Millisecond}, // no more than a burst is saved up
	} {
		if wait, ok := l.Allow(nil, step.who, ms(step.at)); ok != step.ok || wait != step.wait {
			t.Errorf("at %d ms, %v: %v after %v, want %v after %v", step.at, step.who, ok, wait, step.ok, step.wait)
		}
	}
	if l.Refused() != 4 {
		t.Errorf("refused %d", l.Refused())
	}
	// Another plan with another rate goes on with the same accounts.
	l, _ = compileLimit(t, "rate = \"1/s\"\nburst = 1", p)
	if _, ok := l.Allow(nil, a, ms(9000)); ok {
		t.Error("a new plan has forgotten what was taken")
	}
}

func TestWhoIsOneClient(t *testing.T) {
	request := func(fields string) *h1.Request {
		var q h1.Request
		if e := q.Parse([]byte("GET /?k=1 HTTP/1.1\r\nHost: x\r\n"+fields+"\r\n"), h1.Limits{}); e != h1.OK {
			t.Fatal(e)
		}
		return &q
	}
	v4, same, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:0:ffff::2")
	apart := netip.MustParseAddr("2001:db8:0:1::1")
	l, _ := compileLimit(t, `rate = "1/s"`, nil)
	if l.account(nil, same) != l.account(nil, other) || l.account(nil, same) == l.account(nil, apart) || l.account(nil, v4) == 0 {
		t.Error("IPv6 clients are not told apart by their /64")
	}
	l, _ = compileLimit(t, "rate = \"1/s\"\nipv6_prefix = 128", nil)
	if l.account(nil, same) == l.account(nil, other) {
		t.Error("ipv6_prefix = 128 does not tell addresses apart")
	}
	l, _ = compileLimit(t, "rate = \"1/s\"\nkey = header[\"X-Key\"]", nil)
	if a, b := l.account(request("X-Key: a\r\n"), v4), l.account(request("X-Key: a\r\n"), same); a != b || a == 0 {
		t.Error("the same key is not the same client")
	}
	if l.account(request(""), v4) != 0 {
		t.Error("a request without the key has an account")
	}
}

func TestAFullTableForgetsTheOldestWithoutConnections(t *testing.T) {
	l, _ := compileLimit(t, "rate = \"1/h\"\nconnections = 2\nsize = 100", nil)
	if n := len(l.table.buckets) * limitWays; n < 100 || n > 256 {
		t.Errorf("a table for 100 has %d entries", n)
	}
	holder := netip.MustParseAddr("192.0.2.1")
	acct, ok := l.Open(holder, 0)
	if !ok || acct == 0 {
		t.Fatal("refused")
	}
	l.Open(holder, 0)
	for i := range 10_000 { // a flood of addresses
		l.Allow(nil, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), int64(i+1))
	}
	if _, ok := l.Open(holder, 10_001); ok {
		t.Error("the flood has pushed out an account with connections")
	}
	l.Close(acct)
	if _, ok := l.Open(holder, 10_002); !ok {
		t.Error("a place that was given back is not free")
	}
	// When every account of a bucket has connections, even those make room, and giving back what is forgotten is no harm.
	for i := range 10_000 {
		l.Open(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), int64(20_000+i))
	}
	l.Close(acct)
}

func TestLimitsAllocateNothing(t *testing.T) {
	l, _ := compileLimit(t, "rate = \"1000/s\"\nconnections = 5", nil)
	a, now := netip.MustParseAddr("2001:db8::1"), int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 1000
		l.Allow(nil, a, now)
		if acct, ok := l.Open(a, now); ok {
			l.Close(acct)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLimit(b *testing.B) {
	l, _ := compileLimit(b, `rate = "1000000/s"`, nil)
	a, now := netip.MustParseAddr("192.0.2.1"), int64(0)
	for b.Loop() {
		now += 10_000
		l.Allow(nil, a, now)
	}
}
