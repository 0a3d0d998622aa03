package plan

import (
	"strings"

	"github.com/skeinlb/skein/config"
)

// fewRoutes is how many routes are tried one by one: to look into a table takes as long as some tests of a path.
const fewRoutes = 8

// index finds, for a host and a path, the routes that can match, in written order: so that the first of many costs as much as the
// last. What it finds is tested all the same, but for the host. Memory is linear in the routes. Immutable.
type index struct {
	hosts   map[string]*paths // by host
	below   map[string]*paths // by "example.com" for "*.example.com"
	rest    *paths            // the routes that name no host; nil: none
	longest int               // of the keys of below: what is longer need not be looked up
}

// paths are the routes of one host, or of all hosts below one.
type paths struct {
	few     []int32            // all of them, as long as they are few; the rest is empty then
	any     []int32            // the routes that name no path
	exact   map[string][]int32 // by path
	below   map[string][]int32 // by "/a" for "/a/*"
	longest int                // of the keys of below
}

func newIndex(routes []*config.Route) *index {
	x := &index{hosts: map[string]*paths{}, below: map[string]*paths{}}
	add := func(m map[string]*paths, key string, i int) {
		if m[key] == nil {
			m[key] = &paths{}
		}
		m[key].few = addOnce(m[key].few, int32(i))
	}
	for i, r := range routes {
		if len(r.Hosts) == 0 {
			if x.rest == nil {
				x.rest = &paths{}
			}
			x.rest.few = append(x.rest.few, int32(i))
		}
		for _, h := range r.Hosts {
			if suffix, ok := wildcard(h); ok {
				add(x.below, suffix, i)
				x.longest = max(x.longest, len(suffix))
			} else {
				add(x.hosts, h, i)
			}
		}
	}
	for _, m := range []map[string]*paths{x.hosts, x.below, {"": x.rest}} {
		for _, p := range m {
			p.divide(routes)
		}
	}
	return x
}

// addOnce enters a route, of which the later ones come later.
func addOnce(list []int32, route int32) []int32 {
	if n := len(list); n > 0 && list[n-1] == route {
		return list
	}
	return append(list, route)
}

// divide sorts the routes by what they say of the path, unless they are few.
func (p *paths) divide(routes []*config.Route) {
	if p == nil || len(p.few) <= fewRoutes {
		return
	}
	p.exact, p.below = map[string][]int32{}, map[string][]int32{}
	for _, i := range p.few {
		if len(routes[i].Paths) == 0 {
			p.any = append(p.any, i)
		}
		for _, path := range routes[i].Paths {
			if tree, ok := strings.CutSuffix(path, "/*"); ok {
				p.below[tree] = addOnce(p.below[tree], i)
				p.longest = max(p.longest, len(tree))
			} else {
				p.exact[path] = addOnce(p.exact[path], i)
			}
		}
	}
	p.few = nil
}

// wildcard takes "*.example.com" apart.
func wildcard(host string) (suffix string, ok bool) {
	if len(host) > 2 && host[0] == '*' && host[1] == '.' {
		return host[2:], true
	}
	return "", false
}

// find collects the lists of routes that can match s.host and path in s.found; first takes them apart.
func (x *index) find(s *Scratch, path []byte) {
	s.found = s.found[:0]
	x.hosts[string(s.host)].find(s, path)
	if len(x.below) > 0 {
		for i := max(1, len(s.host)-x.longest-1); i < len(s.host); i++ {
			if s.host[i] == '.' {
				x.below[string(s.host[i+1:])].find(s, path)
			}
		}
	}
	x.rest.find(s, path)
}

func (p *paths) find(s *Scratch, path []byte) {
	if p == nil {
		return
	}
	s.add(p.few)
	s.add(p.any)
	if len(p.exact) > 0 {
		s.add(p.exact[string(path)])
	}
	if len(p.below) == 0 {
		return
	}
	for i := range min(len(path), p.longest+1) { // "/a/b" is below "", "/a", and "/a/b" itself
		if path[i] == '/' {
			s.add(p.below[string(path[:i])])
		}
	}
	if len(path) <= p.longest {
		s.add(p.below[string(path)])
	}
}

func (s *Scratch) add(list []int32) {
	if len(list) > 0 {
		s.found = append(s.found, list)
	}
}

// next returns the first of the routes found that has not been returned yet, or -1.
func (s *Scratch) next() int32 {
	if len(s.found) == 1 { // as it mostly is
		list := s.found[0]
		if len(list) == 0 {
			return -1
		}
		s.found[0] = list[1:]
		return list[0]
	}
	first := int32(-1)
	for _, list := range s.found {
		if len(list) > 0 && (first < 0 || list[0] < first) {
			first = list[0]
		}
	}
	if first < 0 {
		return -1
	}
	for i, list := range s.found { // a route with several hosts or paths can be in several lists
		if len(list) > 0 && list[0] == first {
			s.found[i] = list[1:]
		}
	}
	return first
}
