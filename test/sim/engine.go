package sim

import (
	"context"
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
	admin map[state.ServerKey]setting
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
	e.conf = c
	return nil
}

func (e *engine) Check(*config.Config) error                { return nil }
func (e *engine) SetUsable(string, string, bool)            {}
func (e *engine) Stats() data.Stats                         { return data.Stats{} }
func (e *engine) SetCertificates([]*data.Certificate) error { return nil }
func (e *engine) SetTicketKeys([]data.TicketKey) error      { return nil }

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
	return e.conf == c
}

// of returns what was last set on a server.
func (e *engine) of(backend, server string) setting {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.admin[state.ServerKey{Backend: backend, Server: server}]
}
