package state

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/skeinlb/skein/config"
)

// SetList changes what is in an address list. What it says of a network outranks the configuration until it is cleared.
type SetList struct {
	List     string
	Add      []netip.Prefix `json:",omitempty"`
	Remove   []netip.Prefix `json:",omitempty"` // not in the list, whatever the configuration or a larger network says
	Clear    []netip.Prefix `json:",omitempty"` // as the configuration says
	ClearAll bool           `json:",omitempty"` // all of them, before the others are carried out
	By       string
	At       time.Time
}

func (SetList) kind() kind { return kindSetList }

// ListEntry is what was set of one network of a list.
type ListEntry struct {
	config.ListEntry
	By string
	At time.Time // by the proposer's clock, for people only
}

// MaxListEntries bounds what can be set on one list. What is longer belongs into the configuration.
const MaxListEntries = 10_000

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func (v *View) setList(c SetList) Result {
	if !v.Scope.HasList(c.List) {
		return refuse(UnknownList, "list %q is not in the configuration", c.List)
	}
	var entries []ListEntry
	if !c.ClearAll {
		entries = slices.Clone(v.Lists[c.List])
	}
	find := func(p netip.Prefix) (int, bool) {
		return slices.BinarySearchFunc(entries, p, func(e ListEntry, p netip.Prefix) int { return comparePrefix(e.Prefix, p) })
	}
	for _, change := range []struct {
		prefixes []netip.Prefix
		set, in  bool
	}{{c.Clear, false, false}, {c.Remove, true, false}, {c.Add, true, true}} {
		for _, p := range change.prefixes {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
				return refuse(Invalid, "%v is not a network", p)
			}
			i, ok := find(p)
			e := ListEntry{config.ListEntry{Prefix: p, In: change.in}, c.By, c.At.UTC()}
			switch {
			case !change.set && ok:
				entries = slices.Delete(entries, i, i+1)
			case !change.set:
			case ok:
				entries[i] = e
			default:
				entries = slices.Insert(entries, i, e)
			}
		}
	}
	if len(entries) > MaxListEntries {
		return refuse(Invalid, "list %q would have %d networks that were set at run time, more than %d", c.List, len(entries), MaxListEntries)
	}
	v.Lists = with(v.Lists, c.List, entries)
	if len(entries) == 0 {
		delete(v.Lists, c.List)
	}
	return Result{}
}

// forgetLists drops what was set on lists that the configuration does not have any more.
func (v *View) forgetLists() (notes []string) {
	for _, name := range missing(v.Lists, cmp.Compare, v.Scope.HasList) {
		notes = append(notes, fmt.Sprintf("forgot what was set on list %s, which is gone", name))
		lists := map[string][]ListEntry{}
		for k, e := range v.Lists {
			if k != name {
				lists[k] = e
			}
		}
		v.Lists = lists
	}
	return notes
}

// HasList reports whether the configuration names the list.
func (s *Scope) HasList(name string) bool {
	_, ok := slices.BinarySearch(s.Lists, name)
	return ok
}

// ListEntries returns what was set on a list, as the engine takes it.
func (v *View) ListEntries(name string) []config.ListEntry {
	var all []config.ListEntry
	for _, e := range v.Lists[name] {
		all = append(all, e.ListEntry)
	}
	return all
}

// InList reports whether the whole network p is in a list because of p itself or of the smallest network around it. except is
// left out of what was set.
func (v *View) InList(name string, p netip.Prefix, except netip.Prefix) bool {
	in, bits := false, -1
	look := func(o netip.Prefix, is bool) {
		if o.Bits() >= bits && o.Bits() <= p.Bits() && o.Contains(p.Addr()) {
			in, bits = is, o.Bits()
		}
	}
	if v.Config != nil {
		if l := v.Config.List(name); l != nil {
			for _, o := range l.CIDRs {
				look(o, true)
			}
		}
	}
	for _, e := range v.Lists[name] { // after the file's: what was set outranks the same network there
		if e.Prefix != except {
			look(e.Prefix, e.In)
		}
	}
	return in
}
