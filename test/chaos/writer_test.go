package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/internal/lab/fleet"
	"github.com/skeinlb/skein/internal/lab/stage"
)

// writer is an operator who changes the configuration again and again, through any node. Each text carries the next number, and each is
// made from the newest revision that he knows of, so that no change of his can undo a later one.
type writer struct {
	a      *arena
	cancel context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	// mu guards the following.
	random   *rand.Rand
	revision uint64 // the newest one known
	sent     int    // numbers handed out
	acked    int    // the highest number that a node has said to be committed
	count    int    // of acknowledgements
	refused  int    // of everything else
}

func newWriter(a *arena) *writer {
	return &writer{a: a, random: rand.New(rand.NewPCG(a.random.Uint64(), 1))}
}

func (w *writer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%d acknowledged at revision %d (%d changes were, %d were not)", w.acked, w.revision, w.count, w.refused)
}

// text is the configuration with a number in it.
func (w *writer) text(number int) string {
	text := fmt.Sprintf(`# number %d
vip "public" { address = "%v/24" }

frontend "shop" {
  vip     = "public"
  http    = %d
  backend = "shop"

  route "number" {
    path = "/number"
    respond {
      status = 200
      body   = "%d"
    }
  }
}

backend "shop" {
  retries { attempts = 2 }
  check "http" {
    path     = "/healthz"
    interval = "300ms"
    timeout  = "300ms"
    fall     = 2
  }
`, number, stage.VIP, stage.FrontPort, number)
	for _, s := range w.a.Servers {
		text += fmt.Sprintf("  server %q { address = %q }\n", s.Name, s.Addr)
	}
	return text + "}\n"
}

// numberOf reads it again.
func numberOf(text string) (n int) {
	fmt.Sscanf(strings.TrimPrefix(text, "# "), "number %d", &n)
	return n
}

// write makes one change through a node.
func (w *writer) write(ctx context.Context, n *fleet.Node) error {
	c := client.New(n.Socket())
	defer c.Close()
	w.mu.Lock()
	w.sent++
	number, revision := w.sent, w.revision
	w.mu.Unlock()
	committed := uint64(0)
	err := c.Apply(ctx, api.ApplyRequest{File: "site.hcl", Text: w.text(number), BasedOn: &revision, Message: fmt.Sprint("number ", number)}, func(e api.ApplyEvent) {
		if e.Committed == nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		committed = e.Committed.Number
		w.acked, w.revision = max(w.acked, number), max(w.revision, committed)
		w.count++
	})
	if committed > 0 {
		return nil // what the nodes made of it is another matter
	}
	w.mu.Lock()
	w.refused++
	w.mu.Unlock()
	return err
}

// start writes until stop.
func (w *writer) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done = cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			nodes := w.a.fleet.Nodes()
			n := nodes[w.random.IntN(len(nodes))]
			bounded, stop := context.WithTimeout(ctx, 3*time.Second)
			err := w.write(bounded, n)
			var refusal *api.Error
			if errors.As(err, &refusal) && refusal.Code == api.CodeStaleRevision {
				w.look(bounded, n)
			}
			stop()
		}
	}()
}

// look learns the newest revision from a node: a change whose answer was lost may have been made.
func (w *writer) look(ctx context.Context, n *fleet.Node) {
	c := client.New(n.Socket())
	defer c.Close()
	if doc, err := c.Config(ctx); err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.revision = max(w.revision, doc.Revision.Number)
	}
}

func (w *writer) stop() {
	if w.cancel != nil {
		w.cancel()
		<-w.done
		w.cancel = nil
	}
}

// nothingLost wants every node to have the last change that was acknowledged, or one that was sent after it, all of them the same.
func (a *arena) nothingLost(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	if _, err := a.fleet.WaitWhole(ctx); err != nil {
		return err
	}
	a.writer.mu.Lock()
	acked, revision := a.writer.acked, a.writer.revision
	a.writer.mu.Unlock()
	first := ""
	for _, n := range a.fleet.Nodes() {
		c := client.New(n.Socket())
		doc, err := c.Config(ctx)
		c.Close()
		switch {
		case err != nil:
			return err
		case numberOf(doc.Text) < acked || doc.Revision.Number < revision:
			return fmt.Errorf("%s has configuration %d at revision %d; configuration %d at revision %d was acknowledged", n.Name, numberOf(doc.Text),
				doc.Revision.Number, acked, revision)
		case first == "":
			first = doc.Text
		case doc.Text != first:
			return fmt.Errorf("%s has configuration %d, %s has %d", n.Name, numberOf(doc.Text), a.fleet.Nodes()[0].Name, numberOf(first))
		}
	}
	a.say("all nodes have configuration %d, the last acknowledged one is %d", numberOf(first), acked)
	return nil
}
