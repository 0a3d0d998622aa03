package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
)

// AddressLists is the answer to /v1/lists.
type AddressLists struct {
	AsOf  AsOf          `json:"as_of"`
	Lists []AddressList `json:"lists"`
}

// AddressList is one list of addresses: what the configuration says and what was set at run time, which outranks it.
type AddressList struct {
	Name     string        `json:"name"`
	Networks []ListNetwork `json:"networks"` // in the order of addresses
	UsedBy   []string      `json:"used_by"`
}

// ListNetwork is one network of a list. Of networks in one another the smallest decides.
type ListNetwork struct {
	Network string    `json:"network"`
	In      bool      `json:"in"`
	Set     bool      `json:"set"`  // at run time
	File    bool      `json:"file"` // it is in the configuration, whatever was set
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// ListRequest changes a list at run time. Networks are written as in a configuration.
type ListRequest struct {
	Add      []string `json:"add,omitempty"`
	Remove   []string `json:"remove,omitempty"`
	Clear    []string `json:"clear,omitempty"` // as the configuration says
	ClearAll bool     `json:"clear_all,omitempty"`
}

func (s *Server) getLists(w http.ResponseWriter, r *http.Request) error {
	v := s.opts.Views.Get()
	l := AddressLists{AsOf: s.asOf(), Lists: []AddressList{}}
	if v.Config != nil {
		for _, c := range v.Config.Lists {
			l.Lists = append(l.Lists, describeList(v, c))
		}
	}
	return answer(w, l)
}

func describeList(v *state.View, c *config.List) AddressList {
	l := AddressList{Name: c.Name, Networks: []ListNetwork{}, UsedBy: usersOf(v.Config, c.Name)}
	type network struct {
		netip.Prefix
		ListNetwork
	}
	var all []network
	for _, p := range c.CIDRs {
		all = append(all, network{p, ListNetwork{In: true, File: true}})
	}
	for _, e := range v.Lists[c.Name] {
		n := ListNetwork{In: e.In, Set: true, By: e.By, At: e.At}
		if i := slices.IndexFunc(all, func(o network) bool { return o.Prefix == e.Prefix }); i >= 0 {
			n.File = true
			all[i].ListNetwork = n
			continue
		}
		all = append(all, network{e.Prefix, n})
	}
	slices.SortFunc(all, func(a, b network) int { return a.Prefix.Compare(b.Prefix) })
	for _, n := range all {
		n.Network = n.Prefix.String()
		l.Networks = append(l.Networks, n.ListNetwork)
	}
	return l
}

// usersOf says who names a list: frontends, and what for.
func usersOf(c *config.Config, name string) []string {
	users := []string{}
	for _, f := range c.Frontends {
		for _, use := range []struct {
			word  string
			lists []string
		}{{"allow", f.Allow}, {"deny", f.Deny}, {"trusted", f.Trusted}} {
			if slices.Contains(use.lists, name) {
				users = append(users, f.Name+" ("+use.word+")")
			}
		}
		for _, r := range f.Routes {
			if asks(r.When, name) {
				users = append(users, f.Name+"/"+r.Name)
			}
		}
	}
	return users
}

func asks(c *config.Cond, name string) bool {
	return c != nil && (c.Op == config.InList && c.Value == name ||
		slices.ContainsFunc(c.Args, func(a *config.Cond) bool { return asks(a, name) }))
}

func (s *Server) postList(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("list")
	var req ListRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	v := s.opts.Views.Get()
	if err := knownList(v, name); err != nil {
		return err
	}
	cmd := state.SetList{List: name, ClearAll: req.ClearAll, By: s.author(r), At: time.Now()}
	for _, part := range []struct {
		from []string
		to   *[]netip.Prefix
	}{{req.Add, &cmd.Add}, {req.Remove, &cmd.Remove}, {req.Clear, &cmd.Clear}} {
		for _, text := range part.from {
			p, err := network(text)
			if err != nil {
				return err
			}
			*part.to = append(*part.to, p)
		}
	}
	if len(cmd.Add)+len(cmd.Remove)+len(cmd.Clear) == 0 && !cmd.ClearAll {
		return errorf(CodeBadRequest, "", "neither add nor remove nor clear is given: there is nothing to change")
	}
	tidy(v, &cmd)
	if len(cmd.Add)+len(cmd.Remove)+len(cmd.Clear) > 0 || cmd.ClearAll {
		if _, err := s.propose(r.Context(), cmd); err != nil {
			return err
		}
		s.opts.Log.Info("list set", "list", name, "added", len(cmd.Add), "removed", len(cmd.Remove), "cleared", len(cmd.Clear), "by", cmd.By)
	}
	v = s.opts.Views.Get()
	if v.Config == nil || v.Config.List(name) == nil {
		return errorf(CodeNotFound, "", "list %q was removed from the configuration meanwhile", name)
	}
	return answer(w, describeList(v, v.Config.List(name)))
}

// tidy keeps what is set short: what would be so without it is cleared, or not set in the first place.
func tidy(v *state.View, cmd *state.SetList) {
	if cmd.ClearAll {
		return
	}
	set := map[netip.Prefix]bool{}
	for _, e := range v.Lists[cmd.List] {
		set[e.Prefix] = true
	}
	keep := func(ps []netip.Prefix, in bool) []netip.Prefix {
		return slices.DeleteFunc(ps, func(p netip.Prefix) bool {
			if v.InList(cmd.List, p, p) != in {
				return false
			}
			if set[p] {
				cmd.Clear = append(cmd.Clear, p)
			}
			return true
		})
	}
	cmd.Add, cmd.Remove = keep(cmd.Add, true), keep(cmd.Remove, false)
}

// knownList refuses a name that is not in this node's view, with a suggestion that the log could not give.
func knownList(v *state.View, name string) error {
	if v.Config == nil {
		return errorf(CodeNotFound, "`skein apply FILE`", "there is no list %q: no configuration was applied yet", name)
	}
	var names []string
	for _, l := range v.Config.Lists {
		if l.Name == name {
			return nil
		}
		names = append(names, l.Name)
	}
	return errorf(CodeNotFound, suggest(name, names, "`skein list show` shows all"), "there is no list %q", name)
}

// network reads a network or an address.
func network(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return p, errorf(CodeBadRequest, "write as in 198.51.100.0/24 or 198.51.100.7", "%q is not a network", text)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return p, errorf(CodeBadRequest, "write the IPv4 network itself", "%q is an IPv4 network in IPv6 clothes", text)
	case p != p.Masked():
		return p, errorf(CodeBadRequest, fmt.Sprintf("write %v for the network, or %v for the one address", p.Masked(), p.Addr()),
			"%q has bits behind its length", text)
	}
	return p, nil
}

// listNotes says what was set at run time on lists that a new configuration has: it goes on to outrank it.
func listNotes(v *state.View, conf *config.Config) []string {
	var notes []string
	for _, l := range conf.Lists {
		if n := len(v.Lists[l.Name]); n > 0 {
			what := fmt.Sprintf("%d networks", n)
			if n == 1 {
				what = "1 network"
			}
			notes = append(notes, fmt.Sprintf("list %q: what was set at run time on %s outranks the file, see skein list show %s", l.Name, what, l.Name))
		}
	}
	return notes
}
