package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
	"github.com/skeinlb/skein/internal/lab/stage"
)

// loopThread is how the engine names the threads of its loops.
const loopThread = "skein-loop"

// cluster is skein.
type cluster struct {
	*fleet.Fleet
	s     *stage.Stage
	head  string // of the configuration
	roles []string
}

// newSkein prepares as many nodes as roles.
func newSkein(binary string, s *stage.Stage, dir string, roles ...string) (*cluster, error) {
	c := &cluster{Fleet: &fleet.Fleet{World: s.World, Binary: binary, Dir: dir}, s: s, roles: roles}
	for i, role := range roles {
		add := c.Add
		if role == "witness" {
			add = c.AddWitness
		}
		if _, err := add(fmt.Sprintf("lb%d", i+1)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// tiebreak is two nodes, of which one alone goes on while it reaches a third host.
type tiebreak struct{ *cluster }

func newTiebreak(binary string, s *stage.Stage, dir string) (*tiebreak, error) {
	gateway, err := s.World.AddHost("gateway")
	if err != nil {
		return nil, err
	}
	c, err := newSkein(binary, s, dir, "balancer", "balancer")
	if err != nil {
		return nil, err
	}
	c.head = fmt.Sprintf("cluster {\n  pair     = \"tiebreak\"\n  tiebreak = %q\n}\n", gateway.Addr)
	return &tiebreak{c}, nil
}

// whole waits until each could do without the other, and the log knows who holds the address.
func (c *tiebreak) whole(ctx context.Context) error {
	_, err := c.WaitStatus(ctx, "both nodes of the pair to be well", func(s *api.Status) bool {
		well := 0
		for _, n := range s.Nodes {
			r := n.Report
			if r == nil || !r.Guard.Fit || r.Guard.Pair == nil || !r.Guard.Pair.Reaches || r.Guard.Pair.Apart || r.Revision.Running != s.Revision.Number {
				continue
			}
			if p := r.Peers; len(p) == 1 && p[0].Alive && p[0].Fit { // a guard that has just started is not fit to its peer for a second
				well++
			}
		}
		return well == 2 && s.AsOf.Quorum && len(s.VIPs) == 1 && s.VIPs[0].Placed == s.VIPs[0].Holder && s.VIPs[0].Holder == c.s.Holder()
	})
	return err
}

func versionOfSkein(o options) (version, error) {
	var v struct {
		Version string `json:"version"`
		Commit  string `json:"commit"`
		Changed bool   `json:"changed"`
	}
	out, err := exec.Command(o.binary, "version", "-o", "json").Output()
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err != nil {
		return version{}, fmt.Errorf("ask %s for its version: %w", o.binary, err)
	}
	if v.Commit == "" { // built without it, as from a second work tree
		out, err := exec.Command("git", "rev-parse", "HEAD").Output()
		if err != nil {
			return version{}, fmt.Errorf("ask git for the commit: %w", err)
		}
		v.Commit = strings.TrimSpace(string(out))
	}
	commit := v.Commit[:min(12, len(v.Commit))]
	if v.Changed {
		commit += ", changed"
	}
	return version{"skein " + v.Version, commit}, nil
}

// configuration is the same as haproxy's in keepalived.go.
func configuration(servers []*lab.WebServer) string {
	text := fmt.Sprintf(`vip "public" { address = "%v/24" }

frontend "shop" {
  vip     = "public"
  http    = %d
  backend = "shop"
}

backend "shop" {
  balance = "least_conn"
  check "http" {
    path     = "/healthz"
    interval = "500ms"
    timeout  = "400ms"
  }
`, stage.VIP, stage.FrontPort)
	for _, w := range servers {
		text += fmt.Sprintf("  server %q { address = %q }\n", w.Name, w.Addr)
	}
	return text + "}\n"
}

func (c *cluster) boot(ctx context.Context) error {
	if err := c.Found(ctx, func(string, string) {}); err != nil {
		return err
	}
	if err := c.Nodes()[0].Apply(ctx, c.head+configuration(c.s.Servers), "the lab's configuration"); err != nil {
		return err
	}
	if err := stage.Until(ctx, func() bool { return c.s.Holder() != "" }); err != nil {
		return err
	}
	return c.Voting(ctx)
}

func (c *cluster) whole(ctx context.Context) error {
	_, err := c.WaitWhole(ctx)
	return err
}

func (c *cluster) voters() (hs []*lab.Host) {
	for _, n := range c.Nodes() {
		hs = append(hs, n.Host)
	}
	return hs
}

func (c *cluster) balancers() (hs []*lab.Host) {
	for i, n := range c.Nodes() {
		if c.roles[i] == "balancer" {
			hs = append(hs, n.Host)
		}
	}
	return hs
}

func (c *cluster) proxy(h *lab.Host) *lab.Process { return c.Node(h.Name).Agent() }

func (c *cluster) loop(h *lab.Host) (int, error) {
	threads, err := c.proxy(h).Threads()
	if err != nil {
		return 0, err
	}
	var loops []int
	for tid, name := range threads {
		if name == loopThread {
			loops = append(loops, tid)
		}
	}
	if len(loops) == 0 {
		return 0, fmt.Errorf("the agent of %s has no thread named %s among %v", h, loopThread, threads)
	}
	return slices.Min(loops), nil
}

func (c *cluster) start(ctx context.Context, h *lab.Host) error {
	n := c.Node(h.Name)
	select {
	case <-n.Agent().Done():
	default:
		return nil
	}
	if err := n.Start(); err != nil {
		return err
	}
	return n.Ready(ctx)
}

func (c *cluster) stop(_ context.Context, h *lab.Host) error {
	return c.Node(h.Name).Agent().Signal(unix.SIGTERM)
}

// skein types a command on a node that is not on h.
func (c *cluster) skein(ctx context.Context, h *lab.Host, args ...string) error {
	nodes := c.Nodes()
	_, err := nodes[slices.IndexFunc(nodes, func(n *fleet.Node) bool { return n.Host != h })].Skein(ctx, args...)
	return err
}

func (c *cluster) move(ctx context.Context, h *lab.Host) error {
	return c.skein(ctx, h, "vip", "move", "public", "--no-wait")
}

// unmove leaves the address where it is: the next run moves it on.
func (c *cluster) unmove(context.Context, *lab.Host) error { return nil }

func (c *cluster) logs() string {
	var b strings.Builder
	for _, n := range c.Nodes() {
		fmt.Fprintf(&b, "--- the end of %s's log\n%s\n", n.Name, n.LogTail(120))
	}
	return b.String()
}

var (
	_ contender = (*cluster)(nil)
	_ contender = (*tiebreak)(nil)
)
