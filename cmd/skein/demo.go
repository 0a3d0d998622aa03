package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// Bounds of the demo.
const (
	demoTime    = 90 * time.Second     // in all; it takes some 40 s
	demoStep    = 15 * time.Second     // for one thing to happen
	demoCalm    = 3 * time.Second      // of steady traffic after each event
	demoEvery   = 4 * time.Millisecond // between fresh connections: 250 a second
	demoReloads = 20
)

var demoVIP = netip.MustParseAddr("198.18.0.100")

// demoCommand is `skein demo`: the main job on one machine, with nothing to install.
func (c *cli) demoCommand() *cobra.Command {
	var keep, shell bool
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: groupNode,
		Short:   "Three nodes, one virtual address and a holder that dies, on this machine, in under a minute",
		Long: `Build a small world on this machine (network namespaces; in a user namespace when you are not root): three
balancers with a virtual address between them, three web servers, and a client that opens 250 fresh connections a second.
Then kill the holder, cut another off, heal it, change the configuration under load, and show what the client saw.

With --shell nothing is killed: you get a shell on the client, to do it yourself.

Nothing of this machine's own network is touched, and nothing is left behind.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Enter(); err != nil {
				return failf("", "%v", err)
			}
			return c.demo(cmd.Context(), keep, shell)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-logs", false, "leave the nodes' logs and data on disk and say where")
	cmd.Flags().BoolVar(&shell, "shell", false, "give me a shell in that world instead of the performance")
	return cmd
}

// labSweeperCommand is how the demo's network starts this program again, to clean up after it however it ends.
func (c *cli) labSweeperCommand() *cobra.Command {
	return &cobra.Command{
		Use: "lab-sweeper", Hidden: true, Args: args(), Short: "Clean up after a demo that ended",
		RunE: func(*cobra.Command, []string) error { return lab.Enter() },
	}
}

// demoEvent is one thing that happened, and what the client saw of it.
type demoEvent struct {
	Event        string         `json:"event"`
	What         string         `json:"what"` // in words
	OutageMs     float64        `json:"outage_ms"`
	Failed       int            `json:"failed"`
	Requests     int            `json:"requests"`
	Errors       map[string]int `json:"errors,omitempty"`
	HolderBefore string         `json:"holder_before"`
	HolderAfter  string         `json:"holder_after"`
}

// demoSummary is the document of `skein demo -o json`.
type demoSummary struct {
	Requests         int         `json:"requests"`
	Failed           int         `json:"failed"`
	RequestsPerSec   float64     `json:"requests_per_second"`
	TwoHolderSamples int         `json:"two_holder_samples"`
	HolderSamples    int         `json:"holder_samples"`
	Events           []demoEvent `json:"events"`
}

// demo is one performance.
type demo struct {
	c     *cli
	say   io.Writer // the story
	world *lab.World
	fleet *fleet.Fleet
	load  *lab.Load
	watch *lab.ARPWatch
	start time.Time // of the load

	events []demoEvent

	mu sync.Mutex
	// mu guards the following.
	doing string // shown in the live line
}

func (c *cli) demo(ctx context.Context, keep, shell bool) error {
	dir, err := os.MkdirTemp("", "skein-demo-")
	if err != nil {
		return err
	}
	if keep {
		defer fmt.Fprintf(c.errOut, "logs and data: %s\n", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	d := &demo{c: c, say: c.out}
	if c.machine() {
		d.say = c.errOut // the document alone goes to standard output
	}
	if d.world, err = lab.New(slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		return failf("", "%v", err)
	}
	defer d.world.Close()
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	d.fleet = &fleet.Fleet{World: d.world, Binary: binary, Dir: dir}
	play := d.perform
	if shell {
		play = d.shell
	}
	if err := play(ctx); err != nil {
		for _, n := range d.fleet.Nodes() {
			fmt.Fprintf(c.errOut, "--- the last lines of %s's log\n%s\n", n.Name, n.LogTail(8))
		}
		return failf("--keep-logs leaves the nodes' logs on disk; `make doctor` says what this machine lacks", "%v", err)
	}
	return nil
}

func (d *demo) perform(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoTime, fmt.Errorf("the demo did not end within %v", demoTime))
	defer cancel()
	if err := d.build(ctx); err != nil {
		return err
	}
	client, err := d.world.AddHost("client")
	if err != nil {
		return err
	}
	watcher, err := d.world.AddHost("watcher")
	if err != nil {
		return err
	}
	d.load = &lab.Load{Target: netip.AddrPortFrom(demoVIP, 80), HostName: "shop.example.com", Every: demoEvery}
	d.watch = &lab.ARPWatch{Addr: demoVIP}

	lctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		if err := d.watch.Run(lctx, watcher); err != nil {
			failed <- err
		}
	})
	if err := d.until(ctx, "somebody holds the address", func() bool { return d.holder() != "" }); err != nil {
		return err
	}
	fmt.Fprintf(d.say, "\n%s holds %v. The client opens %d fresh connections a second, each with one request.\n\n",
		d.holder(), demoVIP, time.Second/demoEvery)
	d.start = time.Now()
	wg.Go(func() {
		if err := d.load.Run(lctx, client); err != nil {
			failed <- err
		}
	})
	wg.Go(func() { d.live(lctx) })

	for _, scene := range []func(context.Context) error{d.calm, d.killHolder, d.cutHolder, d.heal, d.reload} {
		if err := scene(ctx); err != nil {
			return err
		}
		select {
		case err := <-failed:
			return err
		default:
		}
	}
	stop()
	wg.Wait()
	return d.summary()
}

// build makes the network, the servers and the cluster, and applies the configuration.
func (d *demo) build(ctx context.Context) error {
	fmt.Fprintf(d.say, "Three balancers, three web servers and a client, in network namespaces of this machine:\n\n%s\n", demoPicture)
	for _, name := range []string{"lb1", "lb2", "lb3"} {
		if _, err := d.fleet.Add(name); err != nil {
			return err
		}
	}
	var servers []*lab.WebServer
	for _, name := range []string{"web1", "web2", "web3"} {
		h, err := d.world.AddHost(name)
		if err != nil {
			return err
		}
		s, err := h.ServeHTTP(name, 8080)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	bctx, cancel := context.WithTimeout(ctx, 2*demoStep)
	defer cancel()
	if err := d.fleet.Boot(bctx, func(node, command string) { fmt.Fprintf(d.say, "  %-4s %s\n", node, command) }); err != nil {
		return err
	}
	fmt.Fprintf(d.say, "  %-4s %s\n", "lb2", "skein apply edge.hcl")
	return d.fleet.Node("lb2").Apply(bctx, demoConfig(servers, 1), "the demo's first configuration")
}

const demoPicture = `      client                     the address moves between lb1, lb2 and lb3;
        |                        each of them serves the same configuration
   198.18.0.100 (VIP)
        |
   lb1 = lb2 = lb3
    |     |     |
   web1  web2  web3
`

// demoConfig is the configuration; the weight of the first server is what the reloads change. The address prefers the nodes in their order:
// who takes it over does not hang on who wins the election.
func demoConfig(servers []*lab.WebServer, weight int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "vip \"public\" {\n  address = \"%v/24\"\n  prefer  = [\"lb1\", \"lb2\", \"lb3\"]\n}\n\nfrontend \"shop\" {\n  vip     = \"public\"\n  http    = 80\n  backend = \"shop\"\n}\n\n", demoVIP)
	b.WriteString("backend \"shop\" {\n  balance = \"least_conn\"\n  check \"http\" {\n    path     = \"/healthz\"\n    interval = \"500ms\"\n    timeout  = \"400ms\"\n  }\n")
	for i, s := range servers {
		w := 1
		if i == 0 {
			w = weight
		}
		fmt.Fprintf(&b, "  server %q {\n    address = %q\n    weight  = %d\n  }\n", s.Name, s.Addr, w)
	}
	b.WriteString("}\n")
	return b.String()
}

func (d *demo) holder() string { return d.watch.Holder(d.world) }

// until waits for something that the wire or the nodes show.
func (d *demo) until(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoStep, fmt.Errorf("it took longer than %v", demoStep))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}

// calm lets the client have some requests with nothing going on.
func (d *demo) calm(ctx context.Context) error {
	_, err := d.seen(ctx, time.Now())
	return err
}

// seen waits until the client's traffic is steady again after an event, and returns what it saw.
func (d *demo) seen(ctx context.Context, since time.Time) (lab.Outage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoStep, fmt.Errorf("the client was not served again within %v", demoStep))
	defer cancel()
	return d.load.Record.Settled(ctx, since, demoCalm)
}

// event does something, waits for its end and writes down what the client saw.
func (d *demo) event(ctx context.Context, id, name string, act, over func() error) error {
	before := d.holder()
	d.tell(name)
	since := time.Now()
	if err := act(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if over != nil {
		if err := over(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	o, err := d.seen(ctx, since)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	e := demoEvent{
		Event: id, What: name, OutageMs: float64(o.Length().Microseconds()) / 1000, Failed: o.Failed, Requests: o.Requests, Errors: o.Errors,
		HolderBefore: before, HolderAfter: d.holder(),
	}
	d.events = append(d.events, e)
	d.line(fmt.Sprintf("  -> outage %s, %d of %d requests failed%s; the address is on %s", ms(o.Length()), o.Failed, o.Requests,
		kinds(o.Errors), e.HolderAfter))
	return nil
}

func (d *demo) killHolder(ctx context.Context) error {
	before := d.holder()
	n := d.fleet.Node(before)
	if n == nil {
		return fmt.Errorf("the address is held by %q, which is no node", before)
	}
	err := d.event(ctx, "agent_killed", "agent of "+before+" killed (kill -9)", n.Kill, func() error {
		return d.until(ctx, "another node holds the address", func() bool { h := d.holder(); return h != "" && h != before })
	})
	if err != nil {
		return err
	}
	d.tell(before + " is started again")
	if err := n.Start(); err != nil {
		return err
	}
	if err := d.whole(ctx); err != nil {
		return err
	}
	d.tell("all three nodes are there again")
	return d.calm(ctx)
}

func (d *demo) cutHolder(ctx context.Context) error {
	before := d.holder()
	n := d.fleet.Node(before)
	if n == nil {
		return fmt.Errorf("the address is held by %q, which is no node", before)
	}
	return d.event(ctx, "holder_cut_off", before+" cut off from the network", func() error { return d.world.Cut(n.Host) }, func() error {
		return d.until(ctx, "another node holds the address", func() bool { h := d.holder(); return h != "" && h != before })
	})
}

func (d *demo) heal(ctx context.Context) error {
	return d.event(ctx, "healed", "network healed", d.world.Heal, func() error { return d.whole(ctx) })
}

// whole waits until all nodes are members in good standing.
func (d *demo) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*demoStep, fmt.Errorf("it took longer than %v", 2*demoStep))
	defer cancel()
	_, err := d.fleet.WaitStatus(ctx, "all nodes to be back", func(s *api.Status) bool {
		committed := uint64(0)
		for _, n := range s.Nodes {
			if n.Report == nil {
				return false
			}
			committed = max(committed, n.Report.Raft.CommitIndex)
		}
		for _, n := range s.Nodes {
			r := n.Report
			if !n.Alive || !n.Reachable || r.Revision.Running != s.Revision.Number || !r.Guard.Fit || r.Raft.Leader == "" || r.Raft.AppliedIndex < committed {
				return false
			}
		}
		return len(s.Nodes) == len(d.fleet.Nodes()) && s.AsOf.Quorum
	})
	return err
}

func (d *demo) reload(ctx context.Context) error {
	var servers []*lab.WebServer
	for _, h := range d.world.Hosts() {
		if strings.HasPrefix(h.Name, "web") {
			servers = append(servers, &lab.WebServer{Name: h.Name, Addr: netip.AddrPortFrom(h.Addr, 8080)})
		}
	}
	return d.event(ctx, "reloaded", fmt.Sprintf("%d configuration changes under load", demoReloads), func() error {
		for i := range demoReloads {
			n := d.fleet.Nodes()[i%3]
			some := servers
			if i%2 == 0 {
				some = servers[:2] // web3 leaves and comes back
			}
			if err := n.Apply(ctx, demoConfig(some, 1+(i+1)%4), fmt.Sprintf("change %d", i+1)); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

// tell says what happens next.
func (d *demo) tell(what string) {
	d.mu.Lock()
	d.doing = what
	d.mu.Unlock()
	d.line(fmt.Sprintf("%5.1fs  %s", time.Since(d.start).Seconds(), what))
}

// line prints one line of the story above the live one.
func (d *demo) line(s string) {
	if d.c.outTTY {
		s = "\r\x1b[K" + s
	}
	fmt.Fprintln(d.say, s)
}

// live shows who holds the address, the rate and the errors: one line that changes on a terminal, a line every two seconds elsewhere.
func (d *demo) live(ctx context.Context) {
	every := 200 * time.Millisecond
	if !d.c.outTTY {
		every = 2 * time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if d.c.outTTY {
				fmt.Fprint(d.say, "\r\x1b[K")
			}
			return
		case now := <-tick.C:
			s := d.load.Record.Summary(now.Add(-time.Second))
			all := d.load.Record.Summary(d.start)
			holder := d.holder()
			if holder == "" {
				holder = "nobody"
			}
			text := fmt.Sprintf("%5.1fs  %s holds %v   %3.0f requests/s   p50 %s   %d errors in all", time.Since(d.start).Seconds(), holder, demoVIP,
				s.PerSec, ms(s.P50), all.Failed)
			if d.c.outTTY {
				fmt.Fprint(d.say, "\r\x1b[K"+text)
			} else {
				fmt.Fprintln(d.say, text)
			}
		}
	}
}

// summary prints what the client saw.
func (d *demo) summary() error {
	all := d.load.Record.Summary(d.start)
	two, _ := d.watch.TwoHolders(d.start)
	doc := demoSummary{
		Requests: all.Requests, Failed: all.Failed, RequestsPerSec: all.PerSec, TwoHolderSamples: two,
		HolderSamples: len(d.watch.Samples(d.start)), Events: d.events,
	}
	return d.c.show(view{doc: doc, draw: func(bool) { d.draw(doc) }, names: func() []string {
		var names []string
		for _, e := range doc.Events {
			names = append(names, e.Event)
		}
		return names
	}})
}

// draw is the summary for people.
func (d *demo) draw(doc demoSummary) {
	t := newTable("EVENT", "OUTAGE", "FAILED", "REQUESTS", "ADDRESS")
	for _, e := range d.events {
		moved := "stayed on " + e.HolderAfter
		if e.HolderBefore != e.HolderAfter {
			moved = e.HolderBefore + " -> " + e.HolderAfter
		}
		t.row(e.What, ms(time.Duration(e.OutageMs*float64(time.Millisecond))), fmt.Sprint(e.Failed), fmt.Sprint(e.Requests), moved)
	}
	fmt.Fprintln(d.say, "\nWhat the client saw:")
	d.c.drawTable(t)
	fmt.Fprintf(d.say, "\n%d requests, %d failed. In %d of %d samples of the wire two nodes answered for the address.\n", doc.Requests, doc.Failed,
		doc.TwoHolderSamples, doc.HolderSamples)
}

// ms writes a duration in milliseconds, as people compare outages.
func ms(v time.Duration) string {
	if v > 0 && v < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(v.Microseconds())/1000)
	}
	return fmt.Sprintf("%d ms", v.Round(time.Millisecond).Milliseconds())
}

// kinds lists errors by kind: " (7 refused, 1 timeout)".
func kinds(errs map[string]int) string {
	if len(errs) == 0 {
		return ""
	}
	var parts []string
	for k, n := range errs {
		parts = append(parts, fmt.Sprintf("%d %s", n, k))
	}
	slices.Sort(parts)
	return " (" + strings.Join(parts, ", ") + ")"
}
