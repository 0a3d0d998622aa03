package sim

import (
	"context"
	"net/netip"
	"reflect"
	"sync"

	"github.com/skeinlb/skein/config"
	data "github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/state"
)

// engine is a data plane that serves nobody and remembers what it was told.
type engine struct {
	machine *state.Machine

	mu sync.Mutex
	// mu guards the following.
	conf  *config.Config
	fails error // Apply
	admin map[state.ServerKey]setting

	certs   []*data.Certificate
	tickets []data.TicketKey
}

type setting struct {
	state  plan.Admin
	weight int
}

func newEngine(m *state.Machine) *engine {
	return &engine{machine: m, admin: map[state.ServerKey]setting{}}
}

func (e *engine) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (e *engine) Apply(c *config.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fails != nil {
		return e.fails
	}
	e.conf = c
	return nil
}

// refuse makes every configuration from now on fail with err; nil: none.
func (e *engine) refuse(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fails = err
}

func (e *engine) Check(*config.Config) error     { return nil }
func (e *engine) SetUsable(string, string, bool) {}
func (e *engine) Stats() data.Stats              { return data.Stats{} }
func (e *engine) SetCertificates(certs []*data.Certificate) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.certs = certs
	return nil
}

func (e *engine) SetTicketKeys(keys []data.TicketKey) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tickets = keys
	return nil
}

// tls returns the serial number of the certificate of that name, "" when there is none, and the newest key of session tickets.
func (e *engine) tls(name string) (serial string, newest data.TicketKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.certs {
		if c.Name == name {
			serial = c.Chains[0].Leaf.SerialNumber.String()
		}
	}
	if len(e.tickets) > 0 {
		newest = e.tickets[0]
	}
	return serial, newest
}

func (e *engine) Leave([]netip.Addr) {}

func (e *engine) Drain(ctx context.Context) error { return nil }

func (e *engine) SetList(string, []config.ListEntry) {}

func (e *engine) SetAdmin(backend, server string, s plan.Admin, weight int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.admin[state.ServerKey{Backend: backend, Server: server}] = setting{s, weight}
}

// runs reports whether c is what was applied last.
func (e *engine) runs(c *config.Config) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conf == c || reflect.DeepEqual(e.conf, c) // a snapshot that was installed brings the same text as another Config
}

// of returns what was last set on a server.
func (e *engine) of(backend, server string) setting {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.admin[state.ServerKey{Backend: backend, Server: server}]
}
