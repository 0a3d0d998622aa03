package engine

import (
	"slices"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/engine/proxy"
)

// SetList makes entries what an operator wants of a list; they outrank the configuration. Connections from addresses that are denied
// by it are reset, established ones too. A name that is not configured is ignored: it has been removed a moment ago.
func (e *Engine) SetList(name string, entries []config.ListEntry) {
	e.mu.Lock()
	defer e.mu.Unlock() // Apply takes over what the plan before it has
	p := e.plan.Load()
	if l := p.List(name); l == nil || slices.Equal(l.Entries(), entries) {
		return
	}
	p.SetList(name, slices.Clone(entries))
	e.log.Info("list set", "list", name, "entries", len(entries))
	e.evict(p)
}

// evict resets what p denies. The caller holds e.mu.
func (e *Engine) evict(p *plan.Plan) {
	if slices.ContainsFunc(p.Frontends, (*plan.Frontend).Guarded) {
		e.tell((*proxy.Worker).Evict)
	}
}
