package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/state/sticky"
)

// The configuration that clients change: two addresses, one backend with a sticky table.
const edge = `
vip "public" { address = "192.0.2.10/24" }
vip "inside" { address = "192.0.2.11/24" }

frontend "web" {
  vip     = ["public", "inside"]
  http    = 80
  backend = "shop"
}

backend "shop" {
  sticky "table" {
    key = client
    ttl = "24h"
  }
  server "s1" { address = "198.51.100.1:8080" }
  server "s2" { address = "198.51.100.2:8080" }
  server "s3" { address = "198.51.100.3:8080" }
}
`

var vips = []string{"public", "inside"}

// Clients do what operators and visitors do, and remember what they were promised.
type Clients struct {
	w       *World
	conf    string // what they apply, with small changes
	wg      sync.WaitGroup
	history history

	mu sync.Mutex
	// mu guards the following.
	n       int                   // makes texts, weights and keys differ
	texts   map[uint64]string     // by revision: what was acknowledged
	refused map[string]string     // texts that were refused for certain, and why
	weights map[string][]int      // by server: what may stand, oldest first; the last acknowledged one at [0]
	never   map[string][]int      // by server: what was refused for certain
	learned map[sticky.Key]uint64 // entries that a second node has seen
	busy    map[string]bool       // servers whose weight is being set
	acked   int
}

func newClients(w *World) *Clients {
	return &Clients{
		w: w, conf: edge, texts: map[uint64]string{}, refused: map[string]string{}, weights: map[string][]int{}, never: map[string][]int{},
		learned: map[sticky.Key]uint64{}, busy: map[string]bool{},
	}
}

func (c *Clients) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// Wait returns when nobody waits for an answer any more.
func (c *Clients) Wait() { c.wg.Wait() }

// harmless is whether an error says for certain that nothing was changed.
func harmless(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code != api.CodeUnknownOutcome && e.Code != api.CodeInternal
}

// Apply puts a configuration through a node, and returns once that has answered.
func (c *Clients) Apply(n *Node, text string) error {
	cl := n.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	doc, err := cl.Config(ctx)
	if err != nil {
		return err
	}
	base := doc.Revision.Number
	acknowledged, end := false, c.history.call(write{base})
	err = cl.Apply(ctx, api.ApplyRequest{File: "edge.hcl", Text: text, BasedOn: &base}, func(e api.ApplyEvent) {
		if e.Committed == nil {
			return
		}
		acknowledged = true
		end(told{committed, e.Committed.Number})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.acked++
		c.w.Logf("client: %s acknowledged revision %d", n.Name, e.Committed.Number)
		if old, ok := c.texts[e.Committed.Number]; ok && old != text {
			c.w.violate("revision %d was acknowledged for two texts", e.Committed.Number)
		}
		c.texts[e.Committed.Number] = text
	})
	if acknowledged {
		return nil
	}
	if err != nil && harmless(err) {
		var e *api.Error
		if errors.As(err, &e) && e.Code == api.CodeStaleRevision {
			end(told{stale, e.Revision})
		} else {
			end(told{Kind: refused})
		}
		c.mu.Lock()
		c.refused[text] = err.Error()
		c.mu.Unlock()
	}
	return err
}

// Change applies another text with the same meaning through a node, in the background.
func (c *Clients) Change(n *Node) {
	text := fmt.Sprintf("# change %d\n%s", c.next(), c.conf)
	c.wg.Go(func() {
		if err := c.Apply(n, text); err != nil {
			c.w.Logf("client: no change through %s: %v", n.Name, err)
		}
	})
}

// Weigh sets a server's weight through a node. One client at a time is at one server.
func (c *Clients) Weigh(n *Node, server string) error {
	weight := c.next() % 257
	cl := n.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := cl.SetServer(ctx, "shop", server, api.ServerRequest{Weight: &weight})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.acked++
		c.w.Logf("client: %s acknowledged weight %d of %s", n.Name, weight, server)
		unknown := c.weights[server]
		if len(unknown) > 0 {
			unknown = unknown[1:]
		}
		c.weights[server] = append([]int{weight}, unknown...)
	case harmless(err):
		c.never[server] = append(c.never[server], weight)
		c.w.Logf("client: weight %d of %s refused by %s: %v", weight, server, n.Name, err)
	default:
		if len(c.weights[server]) == 0 {
			c.weights[server] = []int{-1}
		}
		c.weights[server] = append(c.weights[server], weight)
		c.w.Logf("client: weight %d of %s through %s: who knows (%v)", weight, server, n.Name, err)
	}
	return err
}

// WeighSoon does the same in the background, unless somebody is at that server already.
func (c *Clients) WeighSoon(n *Node, server string) {
	c.mu.Lock()
	busy := c.busy[server]
	c.busy[server] = true
	c.mu.Unlock()
	if busy {
		return
	}
	c.wg.Go(func() {
		_ = c.Weigh(n, server) // what came of it is noted there
		c.mu.Lock()
		delete(c.busy, server)
		c.mu.Unlock()
	})
}

// Visit is a new client of the sticky backend at a node. The entry counts as promised once another node has it.
func (c *Clients) Visit(n *Node) {
	if n.engine == nil {
		return
	}
	var key sticky.Key
	binary.BigEndian.PutUint64(key[8:], uint64(c.next()))
	table, server := sticky.ID("shop"), uint64(1+c.next()%3)
	n.engine.machine.Tables().Learn(table, key, server, 24*time.Hour)
	c.wg.Go(func() {
		for range 100 {
			time.Sleep(50 * time.Millisecond)
			for _, o := range c.w.Nodes {
				if o == n {
					continue
				}
				if e := o.loaded(); e != nil {
					if got, ok := e.machine.Tables().Lookup(table, key); ok {
						c.mu.Lock()
						c.learned[key] = got
						c.acked++
						c.mu.Unlock()
						return
					}
				}
			}
		}
	})
}

// Check compares a settled cluster with what was promised.
func (c *Clients) Check() {
	c.w.tb.Helper()
	if n, ok := c.history.check(); !ok {
		c.w.Fatalf("no order of the %d writes explains what their clients were told", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.w.running() {
		v := n.view()
		if v == nil {
			continue
		}
		newest := uint64(0)
		for number := range c.texts {
			newest = max(newest, number)
		}
		text := string(v.Revision.Text)
		switch {
		case v.Revision.Number < newest:
			c.w.Fatalf("%s is at revision %d, %d was acknowledged", n.Name, v.Revision.Number, newest)
		case v.Revision.Number == newest && newest > 0 && text != c.texts[newest]:
			c.w.Fatalf("%s: revision %d is not the acknowledged text", n.Name, newest)
		case c.refused[text] != "":
			c.w.Fatalf("%s runs a text that was refused: %s", n.Name, c.refused[text])
		}
		for _, server := range []string{"s1", "s2", "s3"} {
			got := v.Admin("shop", server).Weight
			if may := c.weights[server]; len(may) > 0 && !slices.Contains(may, got) {
				c.w.Fatalf("%s: weight %d of %s, want %d, or of unknown outcome %v", n.Name, got, server, may[0], may[1:])
			}
			if slices.Contains(c.never[server], got) {
				c.w.Fatalf("%s: weight %d of %s was refused", n.Name, got, server)
			}
			if in := n.engine.of("shop", server).weight; in != got {
				c.w.Fatalf("%s: the engine has weight %d of %s, the state %d", n.Name, in, server, got)
			}
		}
		for key, server := range c.learned {
			if got, ok := n.engine.machine.Tables().Lookup(sticky.ID("shop"), key); !ok || got != server {
				c.w.Fatalf("%s: sticky entry %x is %d %v, want %d", n.Name, key[8:], got, ok, server)
			}
		}
	}
}

// Reload applies a change of servers and makes sure that no address was touched by it.
func (c *Clients) Reload(n *Node) {
	c.w.tb.Helper()
	before := map[string]int{}
	holder := map[string]*Node{}
	for _, v := range vips {
		before[v], holder[v] = c.w.Takes(v), c.w.Holder(v)
	}
	extra := fmt.Sprintf("  server \"s3\" { address = \"198.51.100.3:%d\" }", 9000+c.next())
	if err := c.Apply(n, strings.Replace(c.conf, `  server "s3" { address = "198.51.100.3:8080" }`, extra, 1)); err != nil {
		c.w.Fatalf("change servers through %s: %v", n.Name, err)
	}
	for range 50 {
		c.w.Run(10 * time.Millisecond)
		for _, v := range vips {
			if c.w.Takes(v) != before[v] || c.w.Holder(v) != holder[v] {
				c.w.Fatalf("a reload touched %s", v)
			}
		}
	}
}

// place waits until both addresses are held, the first time.
func (c *Clients) start() {
	c.w.tb.Helper()
	if err := c.Apply(c.w.Nodes[0], c.conf); err != nil {
		c.w.Fatalf("first configuration: %v", err)
	}
	c.w.Settled(15 * time.Second)
}

// loaded is the engine of the agent that runs on the node, if any.
func (n *Node) loaded() *engine {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.engine
}
