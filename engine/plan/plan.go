// Package plan is a configuration compiled for the loops: routes as closures and tables, replies as bytes, servers as numbers.
//
// It opens no socket and decides no health. A Plan is immutable; what changes while it serves (health, admin state, counters) is
// in each server's Live, which outlives the plan: the next plan takes it over. The one rule: what a request needs was computed
// by Compile, so that serving it takes no lock and allocates nothing.
package plan

import "github.com/skeinlb/skein/config"

// MaxLoops is how many loops may share a plan. A loop passes its number, 0 <= loop < MaxLoops, where something is kept per loop.
const MaxLoops = 64

// Plan is immutable but for the Live of its servers and the Stats; any loop may use it.
type Plan struct {
	Config    *config.Config
	Frontends []*Frontend
	Backends  []*Backend

	backends map[string]*Backend
	lists    map[string]*List
	limits   map[string]*Limit
}

// Frontend returns the frontend of that name, or nil.
func (p *Plan) Frontend(name string) *Frontend {
	for _, f := range p.Frontends {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Backend returns the backend of that name, or nil.
func (p *Plan) Backend(name string) *Backend { return p.backends[name] }

// Dropped returns old's servers that p did not take over: what is kept for their connections may go.
func (p *Plan) Dropped(old *Plan) []*Server {
	if old == nil {
		return nil
	}
	kept := map[*Live]bool{}
	for _, b := range p.Backends {
		for _, s := range b.Servers {
			kept[s.Live] = true
		}
	}
	var gone []*Server
	for _, b := range old.Backends {
		for _, s := range b.Servers {
			if !kept[s.Live] {
				gone = append(gone, s)
			}
		}
	}
	return gone
}
