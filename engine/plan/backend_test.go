package plan

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// newBackend has servers a, b, c, ... of the given weights; a negative weight is a backup's.
func newBackend(t *testing.T, balance config.Balance, weights ...int) *Backend {
	t.Helper()
	c := &config.Backend{Name: "shop", Balance: balance, HashKey: config.HashKey{Source: "client"}, StickyCookie: &config.StickyCookie{Name: "SKEIN", HTTPOnly: true, Secure: true, SameSite: "Lax"}}
	for i, w := range weights {
		c.Servers = append(c.Servers, &config.Server{Name: string(rune('a' + i)), Weight: max(w, -w), Backup: w < 0,
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, byte(i)}), 80)})
	}
	p, err := Compile(&config.Config{Backends: []*config.Backend{c}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.Backends[0]
}

// picks renders n picks of loop 0.
func picks(b *Backend, n int, tried uint64) string {
	var out strings.Builder
	for range n {
		if s := b.Pick(Want{Tried: tried}); s == nil {
			out.WriteByte('-')
		} else {
			out.WriteString(s.Name)
		}
	}
	return out.String()
}

// Health, admin state and weight decide who takes new clients; health and admin state alone who keeps its own.
func TestWhoTakesWhom(t *testing.T) {
	for _, c := range []struct {
		usable   bool
		admin    Admin
		weight   int32
		override int32
		new      bool
		stuck    bool
	}{
		{true, Enabled, 1, -1, true, true},
		{false, Enabled, 1, -1, false, false},
		{true, Drain, 1, -1, false, true},
		{true, Disabled, 1, -1, false, false},
		{false, Drain, 1, -1, false, false},
		{true, Enabled, 0, -1, false, true},
		{true, Enabled, 1, 0, false, true},
		{true, Enabled, 0, 3, true, true},
	} {
		b := newBackend(t, config.RoundRobin, 1)
		s := b.Servers[0]
		s.Weight = c.weight
		s.Usable.Store(c.usable)
		s.Admin.Store(uint32(c.admin))
		s.WeightOverride.Store(c.override)
		b.Refresh(0)
		cookie, _, _ := strings.Cut(strings.TrimPrefix(string(b.SetCookie(s)), "SKEIN="), ";")
		if got := b.Pick(Want{}) == s; got != c.new || s.TakesNew() != c.new || b.Usable() == 1 != c.new {
			t.Errorf("%+v: takes new clients: %v", c, got)
		}
		if got := b.ByHash(s.ID) == s; got != c.stuck {
			t.Errorf("%+v: keeps its clients by table: %v", c, got)
		}
		if got := b.ByCookie([]byte(cookie)) == s; got != c.stuck {
			t.Errorf("%+v: keeps its clients by cookie: %v", c, got)
		}
	}
}

func TestBackupsServeOnlyWhenNoPrimaryDoes(t *testing.T) {
	b := newBackend(t, config.RoundRobin, 1, 1, -1, -2)
	if got := picks(b, 4, 0); got != "abab" {
		t.Errorf("with both primaries: %s", got)
	}
	if got := picks(b, 3, b.Server("a").Bit()|b.Server("b").Bit()); got != "---" {
		t.Errorf("with both tried: %s", got)
	}
	b.Server("a").Usable.Store(false)
	b.Refresh(0)
	if got := picks(b, 3, 0); got != "bbb" {
		t.Errorf("with one primary: %s", got)
	}
	b.Server("b").Admin.Store(uint32(Drain))
	b.Refresh(0)
	if got := picks(b, 6, 0); strings.Count(got, "c") != 2 || strings.Count(got, "d") != 4 {
		t.Errorf("without a primary: %s", got)
	}
	b.Server("c").Usable.Store(false)
	b.Refresh(0)
	if got := picks(b, 2, b.Server("d").Bit()); got != "--" {
		t.Errorf("with the last one tried: %s", got)
	}
	b.Server("d").WeightOverride.Store(0)
	b.Refresh(0)
	if got := picks(b, 2, 0); got != "--" {
		t.Errorf("without anybody: %s", got)
	}
}

func TestLoopsStartOneTurnApart(t *testing.T) {
	b := newBackend(t, config.RoundRobin, 1, 1, 1)
	got := ""
	for loop := range 6 {
		got += b.Pick(Want{Loop: loop}).Name
	}
	if got != "abcabc" {
		t.Errorf("the first picks of six loops: %s", got)
	}
}

func TestLeastConnLooksAtWhatIsUnderWay(t *testing.T) {
	b := newBackend(t, config.LeastConn, 1, 1, 2)
	b.Server("a").Begin()
	b.Server("c").Begin()
	b.Server("b").Begin()
	if got := picks(b, 3, 0); got != "ccc" {
		t.Errorf("one session each, shares 1:1:2: %s", got)
	}
	b.Server("a").End()
	if got := picks(b, 3, 0); got != "aaa" {
		t.Errorf("a idle: %s", got)
	}
}

// Even shares take turns where they are equally loaded, and of many servers the least loaded is found without looking at all.
func TestLeastConnAmongEvenShares(t *testing.T) {
	b := newBackend(t, config.LeastConn, 1, 1, 1)
	if got := picks(b, 6, 0); got != "abcabc" {
		t.Errorf("all idle: %s", got)
	}
	b.Server("b").Begin()
	if got := picks(b, 4, 0); got != "acac" {
		t.Errorf("b busy: %s", got)
	}
	if got := picks(b, 3, b.Server("a").Bit()|b.Server("c").Bit()); got != "bbb" {
		t.Errorf("the others tried: %s", got)
	}
	for _, balance := range []config.Balance{config.LeastConn, config.LeastTime} {
		for _, heavy := range []int{1, 2} { // even shares, and uneven ones
			weights := make([]int, 300)
			for i := range weights {
				weights[i] = 1
			}
			weights[7] = heavy
			b = newBackend(t, balance, weights...)
			for range 3000 {
				b.Pick(Want{}).Begin()
			}
			for _, s := range b.Servers {
				if n := s.Active.Load(); n < 8 || n > 12 && s.Index != 7 || n > 24 {
					t.Errorf("%v: 3000 sessions on 300 servers, and %s has %d", balance, s.Name, n)
				}
			}
		}
	}
}

func TestSourceHashKeepsClientsWhereTheyAre(t *testing.T) {
	b := newBackend(t, config.SourceHash, 1, 1, 1, 1)
	client := func(i int) uint64 { return HashAddr(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})) }
	var home [1000]*Server
	count := map[string]int{}
	for i := range home {
		home[i] = b.Pick(Want{Hash: client(i), Hashed: true})
		count[home[i].Name]++
		if b.Pick(Want{Loop: 7, Hash: client(i), Hashed: true}) != home[i] {
			t.Fatalf("client %d: two loops disagree", i)
		}
	}
	for name, n := range count {
		if n < 180 || n > 320 {
			t.Errorf("%s has %d of 1000 clients", name, n)
		}
	}
	b.Server("b").Usable.Store(false)
	b.Refresh(0)
	needless := 0
	for i := range home {
		if s := b.Pick(Want{Hash: client(i), Hashed: true}); home[i].Name != "b" && s != home[i] {
			needless++
		}
	}
	if needless > len(home)/100 {
		t.Errorf("%d of %d clients moved although their server stayed", needless, len(home))
	}
	if HashAddr(netip.MustParseAddr("198.18.0.1")) != HashAddr(netip.MustParseAddr("::ffff:198.18.0.1")) {
		t.Error("the two forms of one address differ")
	}
}

func TestMoreServersThanBitsInTheMask(t *testing.T) {
	weights := make([]int, 70)
	for i := range weights {
		weights[i] = 1
	}
	b := newBackend(t, config.RoundRobin, weights...)
	tried := uint64(0)
	for range 64 {
		s := b.Pick(Want{Tried: tried})
		if s == nil || tried&s.Bit() != 0 {
			t.Fatalf("with %064b tried: %v", tried, s)
		}
		tried |= s.Bit()
	}
}

func TestMaxConnectionsIsNeverExceeded(t *testing.T) {
	b := newBackend(t, config.RoundRobin, 1)
	s := b.Servers[0]
	s.MaxConnections = 3
	for n := range 4 {
		if got, want := s.Acquire(), n < 3; got != want {
			t.Fatalf("of a limit of 3, place %d: %v, want %v", n+1, got, want)
		}
	}
	for range 3 {
		s.Release()
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				if s.Acquire() {
					if n := s.Open.Load(); n > 3 {
						t.Errorf("%d open at a limit of 3", n)
					}
					s.Release()
				}
			}
		})
	}
	wg.Wait()
	if n := s.Open.Load(); n != 0 {
		t.Errorf("%d open in the end", n)
	}
	s.MaxConnections = 0
	for range 10 {
		if !s.Acquire() {
			t.Fatal("refused without a limit")
		}
	}
}

func TestCookieNamesAServerWithoutNamingIt(t *testing.T) {
	b := newBackend(t, config.RoundRobin, 1, 1)
	set := string(b.SetCookie(b.Servers[1]))
	value, attributes, _ := strings.Cut(strings.TrimPrefix(set, "SKEIN="), "; ")
	if len(value) != 16 || strings.Contains(set, "198.18") || attributes != "Path=/; Secure; HttpOnly; SameSite=Lax" {
		t.Errorf("Set-Cookie: %s", set)
	}
	if s := b.ByCookie([]byte(value)); s != b.Servers[1] {
		t.Errorf("the cookie leads to %v", s)
	}
	for _, v := range []string{"", "x", value[:15], value + "0", strings.ToUpper(value)} {
		if s := b.ByCookie([]byte(v)); s != nil && v != value {
			t.Errorf("cookie %q leads to %s", v, s.Name)
		}
	}
	// Nodes and versions must agree: a change of this value loses every client its server.
	if got := cookieValue("shop", "b"); got != value || got != goldenCookie {
		t.Errorf("the cookie of shop/b is %s, was %s", got, goldenCookie)
	}
	if cookieValue("shop", "a") == cookieValue("shopa", "") {
		t.Error("backend and server run into one another")
	}
}

const goldenCookie = "21f5a07f0357579b"

func TestStickyTableKeys(t *testing.T) {
	q := request(t, "GET www.example.com /?user=a%2Bb&empty=", "X-Tenant: t1", "Cookie: sid=s1", "X-Empty:")
	client := netip.MustParseAddr("198.18.0.1")
	hash := func(s string) string {
		h := fnv.New128a()
		h.Write([]byte(s))
		return hex.EncodeToString(h.Sum(nil))
	}
	for _, c := range []struct{ source, name, want string }{
		{"client", "", "00000000000000000000ffffc6120001"},
		{"header", "X-Tenant", hash("t1")},
		{"header", "X-None", "none"},
		{"header", "X-Empty", "none"},
		{"cookie", "sid", hash("s1")},
		{"cookie", "none", "none"},
		{"query", "user", hash("a+b")},
		{"query", "empty", "none"},
	} {
		table := compileTable(&config.StickyTable{Key: config.StickyKey{Source: c.source, Name: c.name}}, "shop")
		got := "none"
		if key, ok := table.KeyOf(q, client); ok {
			got = hex.EncodeToString(key[:])
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.source, c.name, got, c.want)
		}
		if _, ok := table.KeyOf(nil, client); ok != (c.source == "client") {
			t.Errorf("%s without a request: %v", c.source, ok)
		}
		if n := testing.AllocsPerRun(100, func() { table.KeyOf(q, client) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", c.source, n)
		}
	}
	h := fnv.New64a()
	fmt.Fprint(h, "shop")
	if HashName("shop") != h.Sum64() {
		t.Error("HashName is not FNV-1a 64")
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	for balance := config.RoundRobin; balance <= config.Hash; balance++ {
		b := newBackend(t, balance, 1, 2, 3, -1)
		if b.hash != nil {
			b.hash.bound = 1.25
		}
		for _, tried := range []uint64{0, 1} {
			if n := testing.AllocsPerRun(100, func() { b.Pick(Want{Loop: 1, Now: 1e9, Hash: 42, Hashed: true, Tried: tried}) }); n != 0 {
				t.Errorf("%v: %v allocations per pick, want none", balance, n)
			}
		}
	}
}

func TestCountersAddUpOverLoops(t *testing.T) {
	var s Stats
	for loop := range 3 {
		c := s.Loop(loop)
		c.Requests.Add(uint64(loop + 1))
		c.Status[5].Add(2)
		c.Failures[NoServer].Add(1)
		c.Malformed[h1.BareLF].Add(3)
	}
	if s.Loop(1).Requests.Load() != 2 {
		t.Error("a loop's counters are not its own")
	}
	if got := s.Totals(); got.Requests != 6 || got.Status[5] != 6 || got.Failures[NoServer] != 3 || got.Malformed[h1.BareLF] != 9 {
		t.Errorf("totals: %+v", got)
	}
	names := map[string]bool{}
	for f := range NumFailures {
		if names[f.String()] || f.String() == "" {
			t.Errorf("failure %d is named %q", f, f)
		}
		names[f.String()] = true
	}
}

func BenchmarkPick(b *testing.B) {
	for _, servers := range []int{3, 100, 1000} {
		for balance := config.RoundRobin; balance <= config.Hash; balance++ {
			c := &config.Backend{Name: "shop", Balance: balance, HashKey: config.HashKey{Source: "client"}}
			for i := range servers {
				c.Servers = append(c.Servers, &config.Server{Name: fmt.Sprint("s", i), Weight: 1,
					Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 80)})
			}
			p, err := Compile(&config.Config{Backends: []*config.Backend{c}}, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprint(balance, "/", servers), func(b *testing.B) {
				for i := uint64(0); b.Loop(); i++ {
					p.Backends[0].Pick(Want{Now: 1e9, Hash: i, Hashed: true})
				}
			})
		}
	}
}
