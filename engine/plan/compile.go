package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/balance"
	"github.com/skeinlb/skein/engine/h1"
)

// Compile makes a plan of a valid configuration. Servers that old (or nil) has under the same backend, name and address keep
// their Live; frontends and backends keep their Stats by name. All errors are reported at once. old is not changed.
func Compile(c *config.Config, old *Plan) (*Plan, error) {
	p := &Plan{Config: c, backends: map[string]*Backend{}}
	if old == nil {
		old = &Plan{}
	}
	p.lists, p.limits = compileLists(c, old), compileLimits(c, old)
	live := old.lives()
	var errs []error
	for _, cb := range c.Backends {
		b, err := compileBackend(cb, live, old.Backend(cb.Name))
		if err != nil {
			errs = append(errs, fmt.Errorf("backend %q: %w", cb.Name, err))
			continue
		}
		p.Backends = append(p.Backends, b)
		p.backends[b.Name] = b
	}
	if len(errs) > 0 { // a frontend's backend would only be missing because of these
		return nil, errors.Join(errs...)
	}
	listeners := map[config.Listener]*Frontend{}
	for _, cf := range c.Frontends {
		f, wrong := p.compileFrontend(cf)
		for _, err := range wrong {
			errs = append(errs, fmt.Errorf("frontend %q: %w", cf.Name, err))
		}
		if len(wrong) > 0 {
			continue
		}
		if was := old.Frontend(f.Name); was != nil {
			f.Stats = was.Stats
		}
		for _, l := range f.Listeners {
			if other := listeners[l]; other != nil {
				errs = append(errs, fmt.Errorf("frontend %q: frontend %q listens on %v already", f.Name, other.Name, l.Addr))
			}
			listeners[l] = f
		}
		p.Frontends = append(p.Frontends, f)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// identity is what makes a server the same server in another plan.
type identity struct {
	backend, name string
	addr          netip.AddrPort
}

func (p *Plan) lives() map[identity]*Live {
	m := map[identity]*Live{}
	for _, b := range p.Backends {
		for _, s := range b.Servers {
			m[identity{s.Backend, s.Name, s.Addr}] = s.Live
		}
	}
	return m
}

func compileBackend(c *config.Backend, live map[identity]*Live, old *Backend) (*Backend, error) {
	b := &Backend{
		Name:        c.Name,
		Balance:     c.Balance,
		CloseOnDown: c.CloseOnDown,
		Timeouts:    c.Timeouts,
		Retries:     compileRetries(c.Retries),
		Queue:       c.Queue,
		MaxRequests: int64(c.MaxRequests),
		SlowStart:   c.SlowStart,
		MinHealthy:  c.MinHealthy,
		Room:        new(Room),
		Stats:       new(Stats),
		byID:        map[uint64]*Server{},
		hash:        compileHash(c),
		counted:     c.MaxRequests > 0 || c.HashBound > 0,
	}
	if old != nil {
		b.Room, b.Stats, b.age = old.Room, old.Stats, old.age+1
	}
	if b.hash != nil && len(c.Servers) > balance.MaxTable {
		return nil, fmt.Errorf("%d servers: a hash can have %d", len(c.Servers), balance.MaxTable)
	}
	outlier := compileOutlier(c.Outlier)
	for i, cs := range c.Servers {
		s := &Server{
			Backend:        c.Name,
			Name:           cs.Name,
			ID:             HashName(cs.Name),
			Addr:           cs.Address,
			Index:          i,
			Weight:         int32(cs.Weight),
			Backup:         cs.Backup,
			MaxConnections: int64(cs.MaxConnections),
			Outlier:        outlier,
			room:           b.Room,
			Live:           live[identity{c.Name, cs.Name, cs.Address}],
		}
		if s.Live == nil {
			s.Live = newLive()
		}
		if other := b.byID[s.ID]; other != nil {
			return nil, fmt.Errorf("servers %q and %q have the same identifier: rename one of them", other.Name, s.Name)
		}
		b.byID[s.ID] = s
		b.Servers = append(b.Servers, s)
		b.seeds = append(b.seeds, s.ID)
	}
	if c.StickyCookie != nil {
		b.StickyCookie = compileCookie(c.StickyCookie, b)
	}
	if c.StickyTable != nil {
		b.StickyTable = compileTable(c.StickyTable, c.Name)
	}
	b.roster.Store(b.build(old))
	return b, nil
}

func (p *Plan) compileFrontend(c *config.Frontend) (f *Frontend, errs []error) {
	f = &Frontend{
		Name:      c.Name,
		Mode:      c.Mode,
		Listeners: p.Config.Listeners(c),
		Timeouts:  c.Timeouts,
		MinRate:   c.MinRate,
		Log:       !c.NoLog,
		Caps:      c.Caps,
		Head:      h1.Limits{Head: c.Caps.Head, Fields: c.Caps.Headers},
		Stats:     new(Stats),
		index:     newIndex(c.Routes),
		Trusted:   p.named(c.Trusted),
		allow:     p.named(c.Allow),
		deny:      p.named(c.Deny),
	}
	if f.TLS = c.TLS; c.TLS != nil && c.TLS.Redirect {
		f.ToHTTPS = c.TLS.Ports[0]
	}
	for _, l := range p.bounds(c.Limits) {
		if l.CountsConnections() {
			f.Places = l
		}
		if l.interval > 0 {
			f.Limits = append(f.Limits, l)
		}
	}
	if c.Backend != "" {
		if f.Backend = p.backends[c.Backend]; f.Backend == nil {
			errs = append(errs, fmt.Errorf("there is no backend %q", c.Backend))
		}
	}
	if err := checkEdits(c.RequestHeaders, c.ResponseHeaders); err != nil {
		return nil, append(errs, err)
	}
	response := h1.CompileEdits(c.ResponseHeaders)
	f.fallback = &Action{Name: "default", Backend: f.Backend, Request: h1.CompileEdits(c.RequestHeaders), Response: response}
	text := "text/plain; charset=utf-8"
	fixed := func(name string, status int, fields, body string) *Action {
		r, err := newReply(status, fields, text, body, response)
		if err != nil {
			errs = append(errs, err)
		}
		return &Action{Name: name, Reply: r, Response: response}
	}
	if f.Backend == nil {
		f.fallback = fixed("none", 404, "", fmt.Sprintf("404 Not Found: no route of frontend %q takes this request\n", c.Name))
	}
	f.last = [2]*Action{
		fixed("max-forwards", 200, "", ""),
		fixed("max-forwards", 405, "Allow: OPTIONS\r\n", "405 Method Not Allowed: TRACE is not answered here\n"),
	}
	for _, cr := range c.Routes {
		r, err := p.compileRoute(c, cr)
		if err != nil {
			errs = append(errs, fmt.Errorf("route %q: %w", cr.Name, err))
		}
		f.routes = append(f.routes, r)
	}
	return f, errs
}

func (p *Plan) compileRoute(f *config.Frontend, c *config.Route) (route, error) {
	if err := checkEdits(c.RequestHeaders, c.ResponseHeaders); err != nil {
		return route{}, err
	}
	tests, err := compileMatch(c, p.lists)
	if err != nil {
		return route{}, err
	}
	a := &Action{
		Name:     c.Name,
		Request:  h1.CompileEdits(f.RequestHeaders, c.RequestHeaders),
		Response: h1.CompileEdits(f.ResponseHeaders, c.ResponseHeaders),
		Limits:   p.bounds(c.Limits),
	}
	switch {
	case c.Redirect != nil:
		a.Reply, err = newRedirect(c.Redirect, a.Response)
	case c.Respond != nil:
		a.Reply, err = newRespond(c.Respond, a.Response)
	default:
		if a.Backend = p.backends[c.Backend]; a.Backend == nil {
			err = fmt.Errorf("there is no backend %q", c.Backend)
		}
	}
	return route{tests, a}, err
}

// checkEdits refuses edits of what is not the operator's to edit, and whatever would break a head.
func checkEdits(edits ...config.HeaderEdits) error {
	for _, e := range edits {
		names := e.Remove
		for _, h := range append(append([]config.Header(nil), e.Set...), e.Add...) {
			names = append(names[:len(names):len(names)], h.Name)
			if strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("the value of header %q contains a control character", h.Name)
			}
		}
		for _, name := range names {
			if h1.Owned(name) {
				return fmt.Errorf("header %q cannot be edited: skein makes it by itself, for each side anew", name)
			}
			if !h1.IsToken(name) {
				return fmt.Errorf("%q is not a header name", name)
			}
		}
	}
	return nil
}
