package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/internal/node"
	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/sticky"
	"github.com/skeinlb/skein/vip"
)

// trio is three nodes of a cluster in this process, on loopback: raft over TLS, logs and snapshots on disk. Only the edges that
// touch the host are replaced: no guard holds an address, and the data plane is real or absent.
type trio struct {
	// Immutable.
	nodes   [3]*member
	log     *slog.Logger
	traffic bool // real event loops
}

// member is one of the three, running or not.
type member struct {
	conf *config.Node

	// Set while it runs.
	node   *node.Node
	tables *sticky.Tables
	client *client.Client
	stop   context.CancelFunc
	ended  chan error
}

// bound is for everything that a healthy cluster does in a moment.
const bound = 30 * time.Second

// openTrio founds a cluster below dir, joins the others and returns when all three vote.
func openTrio(ctx context.Context, dir string, traffic bool, log *slog.Logger) (*trio, error) {
	t := &trio{log: log, traffic: traffic}
	for i := range t.nodes {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("lb%d", i+1)
		t.nodes[i] = &member{conf: &config.Node{
			Name: name, DataDir: filepath.Join(dir, name), Advertise: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port, Role: config.Balancer,
		}}
		if err := os.MkdirAll(t.nodes[i].conf.DataDir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := t.boot(ctx); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

func (t *trio) boot(ctx context.Context) error {
	first := t.nodes[0]
	if _, err := node.Found(first.conf); err != nil {
		return err
	}
	for i, m := range t.nodes {
		if i > 0 {
			token, err := first.client.NewToken(ctx, api.TokenRequest{Role: "balancer", ExpiresSeconds: 600, Uses: 1})
			if err != nil {
				return err
			}
			at := netip.AddrPortFrom(first.conf.Advertise, first.conf.Port)
			if _, err := node.Join(ctx, m.conf, at.String(), token.Token); err != nil {
				return err
			}
		}
		if err := t.start(m); err != nil {
			return err
		}
		if err := m.wait(ctx, "a leader", func(s *api.Status) bool { return s.AsOf.Quorum && len(s.Nodes) == i+1 }); err != nil {
			return err
		}
	}
	return t.whole(ctx)
}

// whole waits until every node sees three voters and a leader.
func (t *trio) whole(ctx context.Context) error {
	for _, m := range t.nodes {
		err := m.wait(ctx, "three voters", func(s *api.Status) bool {
			voters := 0
			for _, n := range s.Nodes {
				if n.Voter && n.Reachable {
					voters++
				}
			}
			return voters == len(t.nodes) && s.AsOf.Quorum
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// freePort returns a TCP port that nothing listens on.
func freePort() (uint16, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// start opens a member and runs it.
func (t *trio) start(m *member) error {
	n, err := node.Open(node.Options{
		Config: m.conf, Version: "bench", Log: t.log.With("node", m.conf.Name), Guard: &noGuard{}, Engine: func(machine *state.Machine) node.Engine {
			m.tables = machine.Tables()
			if !t.traffic {
				return noEngine{}
			}
			e, err := engine.New(engine.Options{Loops: 1, Log: t.log, Sticky: m.tables})
			if err != nil {
				return broken{err: err}
			}
			return e
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.node, m.stop, m.ended = n, cancel, make(chan error, 1)
	m.client = client.New(filepath.Join(m.conf.DataDir, node.SocketName))
	go func() { m.ended <- n.Run(ctx, time.Second) }()
	return nil
}

// stop ends all members that run, at the same time, and waits for them.
func (t *trio) stop() error {
	var wg sync.WaitGroup
	var errs [len(t.nodes)]error
	for i, m := range t.nodes {
		if m == nil || m.node == nil {
			continue
		}
		wg.Go(func() {
			m.stop()
			errs[i] = <-m.ended
			m.client.Close()
			m.node, m.tables = nil, nil
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// restart starts all members again and waits until they are a cluster.
func (t *trio) restart(ctx context.Context) error {
	for _, m := range t.nodes {
		if err := t.start(m); err != nil {
			return err
		}
	}
	return t.whole(ctx)
}

// configure applies a configuration and waits until every node has its table.
func (t *trio) configure(ctx context.Context, text string) error {
	m := t.nodes[0]
	based := uint64(0)
	if c, err := m.client.Config(ctx); err == nil {
		based = c.Revision.Number
	}
	err := m.client.Apply(ctx, api.ApplyRequest{File: "bench.hcl", Text: text, BasedOn: &based, Message: "bench"}, func(api.ApplyEvent) {})
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return poll(ctx, "the table on every node", func() bool {
		for _, m := range t.nodes {
			if len(m.tables.Specs()) != 1 {
				return false
			}
		}
		return true
	})
}

// leader returns the member that leads.
func (t *trio) leader(ctx context.Context) (*member, error) {
	s, err := t.nodes[0].client.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range t.nodes {
		for _, n := range s.Nodes {
			if n.Leader && n.Name == m.conf.Name {
				return m, nil
			}
		}
	}
	return nil, errors.New("no leader")
}

// wait waits until the member's status fits.
func (m *member) wait(ctx context.Context, what string, fits func(*api.Status) bool) error {
	var last error
	err := poll(ctx, what+" at "+m.conf.Name, func() bool {
		select {
		case err := <-m.ended:
			m.ended <- err
			last = fmt.Errorf("the node ended: %w", err)
			return false
		default:
		}
		s, err := m.client.Status(ctx)
		last = err
		return err == nil && fits(s)
	})
	return errors.Join(err, last)
}

// poll waits until ok is true.
func poll(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// noGuard holds no address: there is none here.
type noGuard struct{ state watch.Value[vip.State] }

func (g *noGuard) State() *watch.Value[vip.State] { return &g.state }
func (*noGuard) Update(vip.Setup) error           { return nil }
func (*noGuard) SetFit(bool, string)              {}
func (*noGuard) Drained(string, vip.Epoch)        {}
func (*noGuard) Close()                           {}

// noEngine carries no traffic: what loops would call, the benchmark calls.
type noEngine struct{}

func (noEngine) Run(ctx context.Context) error               { <-ctx.Done(); return nil }
func (noEngine) Apply(*config.Config) error                  { return nil }
func (noEngine) Check(*config.Config) error                  { return nil }
func (noEngine) SetUsable(string, string, bool)              {}
func (noEngine) SetAdmin(string, string, plan.Admin, int)    {}
func (noEngine) SetList(string, []config.ListEntry)          {}
func (noEngine) Stats() engine.Stats                         { return engine.Stats{} }
func (noEngine) SetCertificates([]*engine.Certificate) error { return nil }
func (noEngine) SetTicketKeys([]engine.TicketKey) error      { return nil }
func (noEngine) Leave([]netip.Addr)                          {}
func (noEngine) Drain(context.Context) error                 { return nil }

// broken is an engine that could not be made; the node that gets it ends with the reason.
type broken struct {
	noEngine
	err error
}

func (b broken) Run(context.Context) error { return b.err }
