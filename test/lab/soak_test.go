package lab

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

var soak = flag.Duration("lab.soak", 20*time.Second, "how long the cluster is used with everything at once")

const (
	securePort  = 443
	mixedPort   = 8443 // the same without TLS
	metricsPort = 9100
	reloadEvery = time.Second
	// A server is dead for so long, and then there are all for as long.
	deadFor = 3 * time.Second
	// Growth that is none: a heap, and what a moment more of traffic takes.
	moreGoroutines = 60
)

// TestSoak uses everything at once, for -lab.soak: fresh and kept HTTP connections, large and slow answers, TCP sessions and streams, TLS
// with and without resumption, chunked uploads, tunnels by Upgrade. The configuration changes every second, on every node in turn, and
// behind some of the clients web servers die and return. A request may fail only if the server that had it died under it. When it is over,
// nobody has grown: neither memory nor descriptors nor goroutines.
func TestSoak(t *testing.T) {
	s := newWorld(t)
	s.fleet = &fleet.Fleet{World: s.world, Binary: *binary, Dir: s.dir}
	s.logsOnFailure()
	for _, name := range []string{"lb1", "lb2", "lb3"} {
		_, err := s.fleet.Add(name, fmt.Sprintf("metrics = \"127.0.0.1:%d\"", metricsPort))
		s.must(err)
	}
	s.bootOn(serveWeb, serveEcho)
	m := newMixed(s)
	web, echo := s.servants()
	st := newSite(fmt.Sprintf("vip \"public\" { address = \"%v/24\" }\n", vip)+m.frontends(), `vip     = "public"`, "", web, echo, s.db)
	m.roots = s.importCertificate()

	var ops []*operator
	for _, n := range s.fleet.Nodes() {
		o := &operator{node: n, api: client.New(n.Socket())}
		t.Cleanup(o.api.Close)
		ops = append(ops, o)
	}
	revision := s.apply(ops[0], 0, st.text())
	s.held()
	holder := s.holder()
	c := s.crowd(vip)
	m.start()
	c.ready()
	m.ready()

	b := &book{name: "soak", since: time.Now(), uses: presence{}}
	for _, n := range s.fleet.Nodes() {
		b.agents = append(b.agents, &agent{name: n.Name, pid: n.Agent().Pid})
	}
	goroutines := map[string][]int{}
	weigh := func() {
		b.weigh()
		for _, n := range s.fleet.Nodes() {
			goroutines[n.Name] = append(goroutines[n.Name], s.goroutines(n))
		}
	}
	random := rand.New(rand.NewPCG(reloadSeed, 2))
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	weighed := time.Time{}
	for i := 0; time.Since(b.since) < *soak && !t.Failed(); i++ {
		if time.Since(weighed) > max(*soak/40, 2*time.Second) {
			weigh()
			weighed = time.Now()
		}
		m.turn()
		o := ops[i%len(ops)]
		next := st.change(random, true)
		if next.Closes != nil {
			c.stop(next.Closes.Port)
		}
		since := time.Now()
		b.uses.before(next.Next)
		if next.Admin != nil {
			s.set(o, *next.Admin)
		} else {
			revision = s.apply(o, revision, next.Next.text())
		}
		b.took = append(b.took, time.Since(since))
		b.uses.after(st, next.Next)
		if st = next.Next; next.Opens != nil {
			c.open(*next.Opens, vip)
		}
		b.progress(t, fmt.Sprintf("of %v, %d changes", *soak, len(b.took)), c.count, m.count)
		<-tick.C
	}
	b.until = time.Now()
	m.revive()
	weigh()
	c.leave()
	m.leave()
	b.judge(t, c)
	m.judge(t)
	for _, n := range s.fleet.Nodes() {
		g := goroutines[n.Name]
		half := len(g) / 2
		first, second := slices.Max(g[:half]), slices.Max(g[half:])
		t.Logf("%s has had %d goroutines at most in the first half, %d in the second", n.Name, first, second)
		if second > first+moreGoroutines {
			t.Errorf("the goroutines of %s have become more: %v", n.Name, g)
		}
	}
	s.heldThroughout(holder, b.since)
}

// goroutines asks a node's metrics how many it has.
func (s *stage) goroutines(n *fleet.Node) int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	c := http.Client{Transport: &http.Transport{DialContext: n.Host.Dial, DisableKeepAlives: true}}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), metricsPort)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%v/metrics", at), nil)
	s.must(err)
	resp, err := c.Do(req)
	s.must(err)
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			count, err := strconv.Atoi(value)
			s.must(err)
			return count
		}
	}
	s.t.Fatalf("the metrics of %s do not say how many goroutines it has", n.Name)
	return 0
}
