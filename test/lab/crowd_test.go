package lab

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/lab"
)

// deadline of a request while configurations change. It is long: a slow answer shows in the times, a lost one fails.
const deadline = 5 * time.Second

// control is the client that goes past skein. Its times are the machine's; its requests do not count.
const control = "fresh, straight to a web server"

// crowd is many clients of different kinds, all on one host. Only one goroutine may use it.
type crowd struct {
	s       *stage
	clients []*visitor
	streams []*lab.Stream
	since   time.Time
	stopAll context.CancelFunc
	ctx     context.Context
	running sync.WaitGroup
}

// visitor is a load with a name; some share one.
type visitor struct {
	name string
	load *lab.Load
	port uint16 // of the extra listener; 0: it stays to the end
	stop context.CancelFunc
	done chan struct{}
}

// crowd starts clients of the site at addr: well over 500 requests and sessions a second, and eight long streams.
func (s *stage) crowd(addr netip.Addr) *crowd {
	c := &crowd{s: s, since: time.Now()}
	c.ctx, c.stopAll = context.WithCancel(s.ctx)
	s.t.Cleanup(func() { c.stopAll(); c.running.Wait() })
	web := netip.AddrPortFrom(addr, 80)
	c.start(control, &lab.Load{Target: s.servers[0].addr, Every: 20 * time.Millisecond})
	c.start("fresh", &lab.Load{Target: web, Every: 4 * time.Millisecond})
	c.start("fresh, other host", &lab.Load{Target: web, Every: 50 * time.Millisecond, HostName: "api.example.com"})
	c.start("fresh, other path", &lab.Load{Target: web, Every: 50 * time.Millisecond, Path: "/api/orders"})
	c.start("fresh, 100 kB", &lab.Load{Target: web, Every: 50 * time.Millisecond, Path: "/bytes/100000"})
	c.start("fresh, answered after 100 ms", &lab.Load{Target: web, Every: 50 * time.Millisecond, Path: "/wait/100ms"})
	for range 5 {
		c.start("kept alive", &lab.Load{Target: web, Every: 20 * time.Millisecond, KeepAlive: true})
	}
	c.start("kept alive, answered after 50 ms", &lab.Load{Target: web, Every: 60 * time.Millisecond, KeepAlive: true, Path: "/wait/50ms"})
	c.start("TCP sessions, changed frontend", &lab.Load{Target: netip.AddrPortFrom(addr, linesPort), Every: 20 * time.Millisecond, Echo: true})
	c.start("TCP sessions, unchanged frontend", &lab.Load{Target: netip.AddrPortFrom(addr, fixedPort), Every: 40 * time.Millisecond, Echo: true})
	for i := range 8 {
		st := &lab.Stream{Target: netip.AddrPortFrom(addr, []uint16{fixedPort, linesPort}[i%2]), Every: 20 * time.Millisecond}
		c.streams = append(c.streams, st)
		c.running.Go(func() {
			if err := st.Run(c.ctx, s.client); err != nil {
				s.t.Error(err)
			}
		})
	}
	return c
}

// start adds a client.
func (c *crowd) start(name string, l *lab.Load) *visitor {
	l.Deadline = deadline
	ctx, stop := context.WithCancel(c.ctx)
	v := &visitor{name: name, load: l, stop: stop, done: make(chan struct{})}
	c.clients = append(c.clients, v)
	c.running.Go(func() {
		defer close(v.done)
		if err := l.Run(ctx, c.s.client); err != nil {
			c.s.t.Error(err)
		}
	})
	return v
}

// open adds a client of an extra listener.
func (c *crowd) open(x extra, addr netip.Addr) {
	l := &lab.Load{Target: netip.AddrPortFrom(addr, x.Port), Every: 40 * time.Millisecond, Echo: x.Mode == "tcp"}
	name := "fresh, extra listeners"
	if l.Echo {
		name = "TCP sessions, extra listeners"
	}
	c.start(name, l).port = x.Port
}

// stop has the client of an extra listener finish and go.
func (c *crowd) stop(port uint16) {
	for _, v := range c.clients {
		if v.port == port {
			v.stop()
			<-v.done
			v.port = 0
		}
	}
}

// ready waits until everybody is served.
func (c *crowd) ready() {
	c.s.t.Helper()
	for _, v := range c.clients {
		c.s.until("somebody is served who is "+v.name, func() bool { return len(v.load.Record.Since(c.since)) >= 10 })
	}
	for _, st := range c.streams {
		c.s.until("the streams flow", func() bool { return st.Report().Echoed > 10 })
	}
}

// leave has everybody finish and go.
func (c *crowd) leave() {
	c.stopAll()
	c.running.Wait()
}

// presence notes from when to when no backend had a server: whoever asked meanwhile must not have been sent there.
type presence map[string][]absence

type absence struct{ from, to time.Time } // to is zero while it lasts

// before ends the absences of servers that the next site has.
func (p presence) before(next *site) {
	for name, list := range p {
		if last := &list[len(list)-1]; last.to.IsZero() && next.serves(name) {
			last.to = time.Now()
		}
	}
}

// after begins the absences of servers that the next site, which is in force everywhere now, has no more.
func (p presence) after(old, next *site) {
	for name := range old.Web {
		if old.serves(name) && !next.serves(name) {
			p[name] = append(p[name], absence{from: time.Now()})
		}
	}
}

// absent reports whether an answer came from a server that was not there.
func (p presence) absent(o lab.Outcome) bool {
	return slices.ContainsFunc(p[o.From], func(a absence) bool {
		return o.At.After(a.from) && (a.to.IsZero() || o.At.Add(o.Took).Before(a.to))
	})
}

// agent is a process that serves, and what it took of the machine from time to time.
type agent struct {
	name    string
	pid     int
	weights []footprint
}

type footprint struct {
	KB  int `json:"kb"` // resident memory of its own, without the pages of files, which stay while nobody else wants the room
	FDs int `json:"descriptors"`
}

// count returns how many requests and sessions have ended, and how many of them failed.
func (c *crowd) count() (done, failed int) {
	for _, v := range c.clients {
		if v.name != control {
			d, f := v.load.Record.Count()
			done, failed = done+d, failed+f
		}
	}
	return done, failed
}

// progress says, once a minute, how far the test is, and what has come of the requests so far.
func (b *book) progress(t *testing.T, far string, counts ...func() (done, failed int)) {
	t.Helper()
	now := time.Now()
	if now.Sub(b.since) < time.Minute || now.Sub(b.said) < time.Minute {
		return
	}
	b.said = now
	done, failed := 0, 0
	for _, count := range counts {
		d, f := count()
		done, failed = done+d, failed+f
	}
	t.Logf("%v %s: %d requests, %d failed", now.Sub(b.since).Round(time.Second), far, done, failed)
}

// weigh notes what every agent takes now.
func (b *book) weigh() {
	for _, a := range b.agents {
		var f footprint
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.pid))
		if _, rest, ok := strings.Cut(string(status), "RssAnon:"); ok {
			fmt.Sscan(rest, &f.KB)
		}
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.pid))
		f.FDs = len(fds)
		a.weights = append(a.weights, f)
	}
}

// book is what is noted of a test that changes configurations.
type book struct {
	name         string
	since, until time.Time
	said         time.Time       // the last progress
	took         []time.Duration // by each change, until all nodes ran it
	uses         presence
	agents       []*agent
}

// The document that is kept.
type reloadFigures struct {
	At         time.Time       `json:"at"`
	Kernel     string          `json:"kernel"`
	CPUs       int             `json:"cpus"`
	Changes    int             `json:"changes"`
	Seconds    float64         `json:"seconds"`
	PerSecond  float64         `json:"changes_per_second"`
	ChangeP50  float64         `json:"change_p50_ms"`
	ChangeP99  float64         `json:"change_p99_ms"`
	ChangesMs  []float64       `json:"changes_ms"`
	Requests   int             `json:"requests"`
	RequestsPS float64         `json:"requests_per_second"`
	Failed     int             `json:"failed"`
	Clients    []clientFigures `json:"clients"`
	Streams    []streamFigures `json:"streams"`
	Agents     []agentFigures  `json:"agents"`
}

type clientFigures struct {
	Name      string         `json:"name"`
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	Errors    map[string]int `json:"errors,omitempty"`
	P50       float64        `json:"p50_ms"`
	P99       float64        `json:"p99_ms"`
	SlowestMs float64        `json:"slowest_ms"`
}

type streamFigures struct {
	Target    string  `json:"target"`
	Echoed    uint64  `json:"echoed"`
	LongestMs float64 `json:"longest_silence_ms"`
	Cut       bool    `json:"cut"`
	Why       string  `json:"why,omitempty"`
}

type agentFigures struct {
	Node string      `json:"node"`
	Over []footprint `json:"over_time"`
}

const (
	// An agent's weight in the second half is held against its weight in the first, at their heaviest: the garbage collector lets a heap
	// grow to a multiple of what is alive, which it does in the first hundreds of changes. What leaks goes on and on.
	moreKB  = 24 << 10
	moreFDs = 100
	// From so many changes on, there must have been the traffic that was promised.
	many, rate = 1000, 500
)

// judge holds what was noted against what was promised, and keeps it.
func (b *book) judge(t *testing.T, c *crowd) {
	t.Helper()
	span := b.until.Sub(b.since)
	p50, p99, _ := percentiles(b.took)
	doc := reloadFigures{
		At: time.Now().UTC().Truncate(time.Second), Kernel: kernel(), CPUs: runtime.NumCPU(), Changes: len(b.took), Seconds: ms(span) / 1000,
		PerSecond: float64(int(float64(len(b.took))/span.Seconds()*10)) / 10, ChangeP50: ms(p50), ChangeP99: ms(p99),
	}
	for _, d := range b.took {
		doc.ChangesMs = append(doc.ChangesMs, ms(d))
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-36s %9s %7s %9s %9s %11s\n", "clients", "requests", "failed", "p50 ms", "p99 ms", "slowest ms")
	for _, f := range b.figures(t, c) {
		doc.Clients = append(doc.Clients, f)
		if f.Name != control {
			doc.Requests, doc.Failed = doc.Requests+f.Requests, doc.Failed+f.Failed
		}
		fmt.Fprintf(&table, "%-36s %9d %7d %9.1f %9.1f %11.1f\n", f.Name, f.Requests, f.Failed, f.P50, f.P99, f.SlowestMs)
		if f.Failed > 0 {
			t.Errorf("%d of %d requests failed (%s): %v", f.Failed, f.Requests, f.Name, f.Errors)
		}
	}
	doc.RequestsPS = float64(int(float64(doc.Requests) / b.until.Sub(c.since).Seconds()))
	fmt.Fprintf(&table, "\n%-36s %9s %7s %31s\n", "streams", "echoed", "cut", "longest silence ms")
	for _, st := range c.streams {
		r := st.Report()
		f := streamFigures{Target: st.Target.String(), Echoed: r.Echoed, LongestMs: ms(r.Longest), Cut: !r.Cut.IsZero(), Why: r.Why}
		doc.Streams = append(doc.Streams, f)
		fmt.Fprintf(&table, "%-36s %9d %7v %31.1f\n", f.Target, f.Echoed, f.Cut, f.LongestMs)
		if f.Cut || f.Echoed == 0 {
			t.Errorf("the stream to %s was cut after %d numbers, %v after the first change: %s", f.Target, f.Echoed, r.Cut.Sub(b.since), f.Why)
		}
	}
	fmt.Fprintf(&table, "\n%-36s %9s %9s %9s %9s\n", "agents", "kB, half", "kB, end", "fd, half", "fd, end")
	for _, a := range b.agents {
		doc.Agents = append(doc.Agents, agentFigures{a.name, a.weights})
		half := len(a.weights) / 2
		first, second := heaviest(a.weights[:half]), heaviest(a.weights[half:])
		fmt.Fprintf(&table, "%-36s %9d %9d %9d %9d\n", a.name, first.KB, second.KB, first.FDs, second.FDs)
		if second.KB > first.KB+moreKB || second.FDs > first.FDs+moreFDs {
			t.Errorf("%s has grown from %+v to %+v", a.name, first, second)
		}
	}
	if len(b.took) >= many && doc.RequestsPS < rate {
		t.Errorf("%.0f requests a second, want at least %d: this machine is too busy", doc.RequestsPS, rate)
	}
	head := fmt.Sprintf("%s, %s, kernel %s, %d CPUs.\n%d changes in %.0f s (%.1f a second), each in force on every node within %.1f ms (median), %.1f ms (p99).\n"+
		"Meanwhile %d requests and sessions (%.0f a second), of which %d failed. The first line of clients is the machine's own times.\n"+
		"Agents: at their heaviest in the first and in the second half.\n\n",
		b.name, doc.At.Format(time.DateTime), doc.Kernel, doc.CPUs, doc.Changes, doc.Seconds, doc.PerSecond, doc.ChangeP50, doc.ChangeP99,
		doc.Requests, doc.RequestsPS, doc.Failed)
	t.Logf("\n%s%s", head, table.String())
	save(t, b.name, doc, head+table.String())
}

// figures sums up the clients, those of one name as one.
func (b *book) figures(t *testing.T, c *crowd) []clientFigures {
	t.Helper()
	var order []string
	took, by := map[string][]time.Duration{}, map[string]*clientFigures{}
	for _, v := range c.clients {
		f := by[v.name]
		if f == nil {
			f = &clientFigures{Name: v.name, Errors: map[string]int{}}
			order, by[v.name] = append(order, v.name), f
		}
		wrong := 0
		for _, o := range v.load.Record.Since(c.since) {
			f.Requests++
			if v.name != control && b.uses.absent(o) {
				if wrong++; wrong == 1 {
					t.Errorf("a request (%s) of %v after the first change was answered by %s, which no backend had", v.name, o.At.Sub(b.since), o.From)
				}
			}
			if !o.Good() {
				f.Failed++
				f.Errors[o.Err]++
				t.Logf("failed (%s): %s after %v, %v after the first change", v.name, o.Err, o.Took, o.At.Sub(b.since))
				continue
			}
			took[v.name] = append(took[v.name], o.Took)
		}
	}
	var fs []clientFigures
	for _, name := range order {
		f := by[name]
		p50, p99, slowest := percentiles(took[name])
		f.P50, f.P99, f.SlowestMs = ms(p50), ms(p99), ms(slowest)
		fs = append(fs, *f)
	}
	return fs
}

func heaviest(fs []footprint) (most footprint) {
	for _, f := range fs {
		most.KB, most.FDs = max(most.KB, f.KB), max(most.FDs, f.FDs)
	}
	return most
}

func percentiles(ds []time.Duration) (p50, p99, slowest time.Duration) {
	if len(ds) == 0 {
		return 0, 0, 0
	}
	sorted := slices.SortedFunc(slices.Values(ds), cmp.Compare)
	n := len(sorted)
	return sorted[n/2], sorted[n*99/100], sorted[n-1]
}
