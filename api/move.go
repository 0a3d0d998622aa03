package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/skeinlb/skein/state"
)

// moveTimeout is how long a move may take until the target answers for the address. Normally that is some milliseconds.
const moveTimeout = 10 * time.Second

// MoveRequest asks for a VIP on another node. An empty Node leaves the choice to the cluster; a zero DrainSeconds is five minutes.
type MoveRequest struct {
	Node         string  `json:"node,omitempty"`
	DrainSeconds float64 `json:"drain_seconds,omitempty"`
}

// Moved is the answer: every VIP that moved, since those of a group go together.
type Moved struct {
	AsOf AsOf       `json:"as_of"`
	VIPs []MovedVIP `json:"vips"`
}

// MovedVIP is one address that moved.
type MovedVIP struct {
	Name         string  `json:"name"`
	From         string  `json:"from"`
	To           string  `json:"to"`
	Epoch        string  `json:"epoch"`
	TookMs       int64   `json:"took_ms"` // until To answered for it
	DrainSeconds float64 `json:"drain_seconds"`
}

// NodeRequest changes what an operator wants of a node.
type NodeRequest struct {
	State        string  `json:"state"` // "drain" or "enabled"
	DrainSeconds float64 `json:"drain_seconds,omitempty"`
}

// NodeDocument is one node.
type NodeDocument struct {
	AsOf AsOf       `json:"as_of"`
	Node NodeStatus `json:"node"`
}

// drainOf reads how long what is established may take.
func drainOf(seconds float64) (time.Duration, error) {
	if seconds == 0 {
		return state.DefaultDrain, nil
	}
	d := time.Duration(seconds * float64(time.Second))
	if d < time.Second || d > state.MaxDrain {
		return 0, errorf(CodeBadRequest, "the usual time is "+state.DefaultDrain.String(), "a drain takes between 1s and %v, not %v", state.MaxDrain, d)
	}
	return d, nil
}

func (s *Server) postMove(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("vip")
	var req MoveRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	drain, err := drainOf(req.DrainSeconds)
	if err != nil {
		return err
	}
	v := s.opts.Views.Get()
	if v.Config == nil || v.Config.VIP(name) == nil {
		return s.unknownVIP(name)
	}
	from, placed := v.Placements[name]
	if !placed {
		return errorf(CodeConflict, "`skein vip explain "+name+"`", "vip %q is on no node yet", name)
	}
	st := s.status(r.Context())
	to := req.Node
	if to == "" {
		if to = state.Target(v, st.health(), name); to == "" {
			return s.nobody(v, &st, name)
		}
	}
	if err := s.suits(v, &st, name, to); err != nil {
		return err
	}
	unit := state.Unit(v, name)
	if err := st.moves(unit); err != nil {
		return err
	}

	begin := time.Now()
	moved := Moved{VIPs: []MovedVIP{}}
	for _, each := range unit {
		p, ok := v.Placements[each]
		if !ok || p.Node == to {
			continue
		}
		m := MovedVIP{Name: each, From: p.Node, To: to, DrainSeconds: drain.Seconds()}
		if err := s.place(r.Context(), &m, p.Epoch, drain); err != nil {
			return err
		}
		moved.VIPs = append(moved.VIPs, m)
	}
	s.opts.Log.Info("vip moved", "vip", name, "from", from.Node, "to", to, "drain", drain, "by", s.author(r))
	ctx, cancel := context.WithTimeout(r.Context(), moveTimeout)
	defer cancel()
	for i := range moved.VIPs {
		if err := s.holds(ctx, to, &moved.VIPs[i]); err != nil {
			return err
		}
		moved.VIPs[i].TookMs = time.Since(begin).Milliseconds()
	}
	moved.AsOf = s.asOf()
	return answer(w, moved)
}

// place has a VIP placed where it is to move from where it was at that epoch.
func (s *Server) place(ctx context.Context, m *MovedVIP, from state.Epoch, drain time.Duration) error {
	res, err := s.propose(ctx, state.Move{VIP: m.Name, Node: m.To, Expect: from, Drain: drain, Asked: true})
	if errors.Is(err, state.ErrStaleEpoch) && s.placed(ctx, m, res.Epoch) {
		err = nil // the leader has had it follow another of its group
	}
	m.Epoch = res.Epoch.String()
	return err
}

// placed reports whether the placement of that epoch, which this node may be about to hear of, is where a VIP is to move.
func (s *Server) placed(ctx context.Context, m *MovedVIP, epoch state.Epoch) bool {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	v, _ := s.opts.Views.Wait(ctx, func(v *state.View) bool { return v.Placements[m.Name].Epoch.Compare(epoch) >= 0 })
	p := v.Placements[m.Name]
	return p.Epoch == epoch && p.Node == m.To
}

// moves refuses VIPs that are not this cluster's to move: of a VRRP group whose active router is none of its nodes.
func (s *Status) moves(unit []string) error {
	for i := range s.VIPs {
		v := &s.VIPs[i]
		switch g := v.VRRP; {
		case !g.Standby() || !slices.Contains(unit, v.Name):
		case g.Active != "":
			return errorf(CodeConflict, "stop that router, or lower its priority; to have another node stand by: `skein node drain "+v.Holder+"`",
				"vip %q cannot be moved: %s, a router of VRRP group %d that is not of this cluster, has the address, and %s stands by", v.Name, g.Active, g.RouterID, v.Holder)
		case g.Why != "":
			return errorf(CodeConflict, "mend that, or `skein node drain "+v.Holder+"`", "vip %q cannot be moved: %s takes no part in VRRP group %d: %s", v.Name, v.Holder, g.RouterID, g.Why)
		default:
			return errorf(CodeConflict, "try again in some seconds; `skein vip explain "+v.Name+"` says how it goes",
				"vip %q cannot be moved yet: %s waits for whether another router of VRRP group %d is active", v.Name, v.Holder, g.RouterID)
		}
	}
	return nil
}

// nobody says of each node that could have taken a VIP why it cannot.
func (s *Server) nobody(v *state.View, st *Status, name string) error {
	var whys []string
	for _, n := range st.Nodes {
		if n.Role != string(state.Balancer) || n.Name == v.Placements[name].Node {
			continue
		}
		if err := s.suits(v, st, name, n.Name); err != nil {
			whys = append(whys, err.Error())
		}
	}
	if len(whys) == 0 {
		return errorf(CodeConflict, "`skein node list` shows all", "no other node can take vip %q", name)
	}
	return errorf(CodeConflict, "`skein node list` shows all", "no other node can take vip %q: %s", name, strings.Join(whys, "; "))
}

// suits refuses a target that cannot take the VIP, and says what is wrong with it.
func (s *Server) suits(v *state.View, st *Status, name, to string) error {
	const hint = "`skein node list` shows all"
	i := slices.IndexFunc(st.Nodes, func(n NodeStatus) bool { return n.Name == to })
	if i < 0 {
		var names []string
		for _, n := range st.Nodes {
			names = append(names, n.Name)
		}
		return errorf(CodeNotFound, suggest(to, names, hint), "there is no node %q", to)
	}
	n := &st.Nodes[i]
	rep := n.Report
	switch _, drained := v.Drained[to]; {
	case n.Role != string(state.Balancer):
		return errorf(CodeConflict, hint, "%s is a %s and holds no addresses", to, n.Role)
	case v.Placements[name].Node == to:
		return errorf(CodeConflict, "`skein vip show "+name+"`", "vip %q is on %s already", name, to)
	case drained:
		return errorf(CodeConflict, "`skein node enable "+to+"` puts it back", "%s is drained", to)
	case rep == nil:
		return errorf(CodeConflict, hint, "%s cannot take it: %s", to, cmp.Or(n.Summary, "it does not answer"))
	case !rep.Guard.Running:
		return errorf(CodeConflict, hint, "%s cannot take it: its guard does not run", to)
	case !rep.Guard.Fit:
		return errorf(CodeConflict, hint, "%s cannot take it: %s", to, cmp.Or(rep.Guard.FitReason, "it is unfit"))
	case rep.Revision.Running != st.Revision.Number:
		return errorf(CodeConflict, "`skein status` says why", "%s cannot take it: it runs revision %d of %d", to, rep.Revision.Running, st.Revision.Number)
	}
	unit := state.Unit(v, name)
	if i := slices.IndexFunc(rep.Guard.Unable, func(u UnableVIP) bool { return slices.Contains(unit, u.Name) }); i >= 0 {
		what := "it"
		if u := rep.Guard.Unable[i].Name; u != name {
			what = u + ", which moves together with it"
		}
		return errorf(CodeConflict, "`skein vip explain "+rep.Guard.Unable[i].Name+"`", "%s cannot take %s: %s", to, what, rep.Guard.Unable[i].Why)
	}
	return nil
}

// holds waits until a node answers for a VIP.
func (s *Server) holds(ctx context.Context, node string, m *MovedVIP) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var r NodeReport
		if node == s.opts.Self {
			r = s.opts.Report()
		} else if err := s.ask(ctx, node, "/v1/node", &r); err != nil && ctx.Err() == nil {
			return errorf(CodeConflict, "`skein vip explain "+m.Name+"`", "the move of %s to %s is committed, but %s does not answer: %v", m.Name, node, node, err)
		}
		if slices.ContainsFunc(r.VIPs, func(h HeldVIP) bool { return h.Name == m.Name && h.Epoch == m.Epoch && !h.VRRP.Standby() }) {
			return nil
		}
		if p := s.opts.Views.Get().Placements[m.Name]; p.Epoch.String() != m.Epoch && p.Node != node {
			return errorf(CodeConflict, "`skein vip show "+m.Name+"`", "vip %q was placed on %s meanwhile", m.Name, p.Node)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errorf(CodeConflict, "`skein vip explain "+m.Name+"`", "the move of %s to %s is committed, but %s does not hold it after %v",
				m.Name, node, node, moveTimeout)
		}
	}
}

// postNode drains a node or puts it back. The leader moves the addresses.
func (s *Server) postNode(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("node")
	var req NodeRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	drain, err := drainOf(req.DrainSeconds)
	if err != nil {
		return err
	}
	v := s.opts.Views.Get()
	n, ok := v.Node(name)
	switch {
	case !ok:
		var names []string
		for _, n := range v.Nodes {
			names = append(names, n.Name)
		}
		return errorf(CodeNotFound, suggest(name, names, "`skein node list` shows all"), "there is no node %q", name)
	case req.State != "drain" && req.State != "enabled":
		return errorf(CodeBadRequest, "use drain or enabled", "unknown node state %q", req.State)
	case req.State == "drain" && n.Role != state.Balancer:
		return errorf(CodeConflict, "it can be stopped at any time, as long as a majority of voters is left", "%s is a witness: there is nothing to drain", name)
	}
	if _, err := s.propose(r.Context(), state.SetNode{Name: name, Drained: req.State == "drain", Drain: drain, By: s.author(r), At: time.Now()}); err != nil {
		return err
	}
	s.opts.Log.Info("node set", "node", name, "state", req.State, "drain", drain, "by", s.author(r))
	st := s.status(r.Context())
	for _, n := range st.Nodes {
		if n.Name == name {
			return answer(w, NodeDocument{AsOf: st.AsOf, Node: n})
		}
	}
	return errorf(CodeNotFound, "", "node %q was removed meanwhile", name)
}
