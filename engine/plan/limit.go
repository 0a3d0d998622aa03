package plan

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// Limit bounds what one client may do, however many loops it comes by. Immutable but for its table, which outlives plans.
type Limit struct {
	Name   string
	Status int // of the answer to what is too much

	key         StickyTable // for its KeyOf
	connections int32       // open at once; 0: any number
	interval    int64       // ns a request; 0: any number of requests
	burst       int64       // ns that a client may be ahead
	prefix      int         // of IPv6 addresses
	table       *limitTable
}

// limitTable has an account for each key, in buckets of ways entries with a lock each. Its size is fixed: where a bucket is full, the
// account that was used longest ago makes room, one without connections first. So whoever can make up keys pushes out accounts in
// proportion to the table's size, and costs neither memory nor time.
type limitTable struct {
	seed    maphash.Seed
	mask    uint64
	buckets []limitBucket
	refused atomic.Uint64
}

const limitWays = 8

// limitBucket is touched for as long as it takes to look through it: the lock is the one on the request path beside those of the
// sticky tables, it is never held across anything, and two requests meet at it only when their keys share a bucket.
type limitBucket struct {
	mu sync.Mutex
	// mu guards the following.
	accounts [limitWays]account
}

type account struct {
	key  uint64 // 0: free
	due  int64  // theoretical arrival time (GCRA): when the key will have had no more than its rate
	used int64  // last
	open int32  // connections
}

func newLimitTable(size int) *limitTable {
	n := 1 << bits.Len(uint((size-1)/limitWays))
	return &limitTable{seed: maphash.MakeSeed(), mask: uint64(n - 1), buckets: make([]limitBucket, n)}
}

// find returns the account of a key. The caller holds b.mu.
func (b *limitBucket) find(key uint64) *account {
	for i := range b.accounts {
		if b.accounts[i].key == key {
			return &b.accounts[i]
		}
	}
	return nil
}

// take returns the account of a key, a new one if there is none. The caller holds b.mu.
func (b *limitBucket) take(key uint64, now int64) *account {
	a := b.find(key)
	if a == nil {
		a = &b.accounts[0]
		for i := range b.accounts {
			o := &b.accounts[i]
			if o.key == 0 {
				a = o
				break
			}
			if idle := o.open == 0; idle != (a.open == 0) {
				if idle {
					a = o
				}
			} else if o.used < a.used {
				a = o
			}
		}
		*a = account{key: key}
	}
	a.used = now
	return a
}

// compileLimits makes c's limits; those that old has with the same key and size go on with their accounts.
func compileLimits(c *config.Config, old *Plan) map[string]*Limit {
	limits := make(map[string]*Limit, len(c.Limits))
	for _, cl := range c.Limits {
		l := &Limit{
			Name: cl.Name, Status: cl.Status, key: *compileTable(&config.StickyTable{Key: cl.Key, Size: cl.Size}, cl.Name),
			connections: int32(cl.Connections), prefix: cl.IPv6Prefix,
		}
		if cl.Rate.Count > 0 {
			l.interval = max(1, int64(cl.Rate.Per)/int64(cl.Rate.Count))
			l.burst = l.interval * int64(cl.Burst)
		}
		if was := old.limits[cl.Name]; was != nil && was.key.Key == cl.Key && was.key.Size == cl.Size && was.prefix == cl.IPv6Prefix {
			l.table = was.table
		} else {
			l.table = newLimitTable(cl.Size)
		}
		limits[cl.Name] = l
	}
	return limits
}

// Limit returns the limit of that name, or nil.
func (p *Plan) Limit(name string) *Limit { return p.limits[name] }

// bounds returns the limits of those names, which a valid configuration has.
func (p *Plan) bounds(names []string) []*Limit {
	var ls []*Limit
	for _, n := range names {
		if l := p.limits[n]; l != nil {
			ls = append(ls, l)
		}
	}
	return ls
}

// account returns the key of the account that a request belongs to; 0: to none, since the request has not what the key asks for. q
// is nil for a connection.
func (l *Limit) account(q *h1.Request, client netip.Addr) uint64 {
	if l.key.Key.Source == "client" && client.Is6() && !client.Is4In6() {
		if p, err := client.Prefix(l.prefix); err == nil {
			client = p.Addr()
		}
	}
	key, ok := l.key.KeyOf(q, client)
	if !ok {
		return 0
	}
	return max(1, maphash.Bytes(l.table.seed, key[:]))
}

// Allow takes one request of the client from its rate. When that is too much, it returns after how long it would not be. now is in
// nanoseconds of the one clock that all loops share.
func (l *Limit) Allow(q *h1.Request, client netip.Addr, now int64) (wait time.Duration, ok bool) {
	if l.interval == 0 {
		return 0, true
	}
	key := l.account(q, client)
	if key == 0 {
		return 0, true
	}
	b := &l.table.buckets[key&l.table.mask]
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.take(key, now)
	due := max(a.due, now)
	if early := due + l.interval - now - l.burst; early > 0 {
		l.table.refused.Add(1)
		return time.Duration(early), false
	}
	a.due = due + l.interval
	return 0, true
}

// Open takes a place for a connection from peer. The account is for Close; 0: none was needed. ok is false when it has too many.
func (l *Limit) Open(peer netip.Addr, now int64) (acct uint64, ok bool) {
	if l.connections == 0 {
		return 0, true
	}
	key := l.account(nil, peer)
	b := &l.table.buckets[key&l.table.mask]
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.take(key, now)
	if a.open >= l.connections {
		l.table.refused.Add(1)
		return 0, false
	}
	a.open++
	return key, true
}

// Close gives a place back. An account that had to make room meanwhile has none to give back to.
func (l *Limit) Close(acct uint64) {
	b := &l.table.buckets[acct&l.table.mask]
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.find(acct); a != nil && a.open > 0 {
		a.open--
	}
}

// CountsConnections says that Open may say no.
func (l *Limit) CountsConnections() bool { return l.connections > 0 }

// Refused returns how often l said no. Any goroutine may call it.
func (l *Limit) Refused() uint64 { return l.table.refused.Load() }
