package vip

import (
	"net/netip"
	"slices"
)

// This file is a Virtual guard's part of a pair, as pair_guard.go is a real one's: what is asked of the segment, of the tie-break and of the disk.

// PairEdge is what lies under a Virtual guard that may be one of a pair. Its methods are called by one goroutine and must not block. What
// is answered by a func is answered at most once, by any goroutine, at any time; a later life of the guard does not hear it.
type PairEdge interface {
	MAC() [6]byte                                   // of the host's interface
	Probe(vip string)                               // ask the segment who has it
	Announce(vip string)                            // tell the segment that this host has it
	Gateways() []netip.Addr                         // what is asked when no tie-break is configured
	Ask(tie netip.Addr, answered func())            // an echo request
	Generation(file string) (uint64, error)         // what stands on the disk; 0: nothing
	Save(file string, n uint64, done func(e error)) // put it there
}

// virtualPair is what a Virtual knows of it. It is owned by Run.
type virtualPair struct {
	file string // whose generation this life has read
	ties []netip.Addr
}

// Claimed says that a frame named mac as the owner of a VIP, in an answer or an announcement.
func (v *Virtual) Claimed(vip string, mac [6]byte) {
	v.tellRun(func() {
		i := v.m.vipIndex(vipKey(vip))
		if i < 0 || mac == v.m.mac {
			return
		}
		for _, p := range v.m.vips[i].prefixes {
			v.m.foreign(v.now(), i, p.Addr(), mac)
		}
	})
}

// tellRun has Run call f, as soon as it runs.
func (v *Virtual) tellRun(f func()) {
	v.mu.Lock()
	if len(v.heard) < virtualInbox {
		v.heard = append(v.heard, f)
	}
	v.mu.Unlock()
	v.poke()
}

// resolvePair returns s as it is for this host and prepares what its pair needs, as guard.resolvePair and guard.setPair do.
func (v *Virtual) resolvePair(s *Setup) *Setup {
	edge := v.opts.Pair
	if s.Pair == nil || edge == nil {
		v.pair = virtualPair{}
		return s
	}
	own, pair := *s, *s.Pair
	if len(pair.Tiebreak) == 0 && !pair.Available {
		pair.Tiebreak = edge.Gateways()
	}
	own.Pair = &pair
	if v.pair.file != pair.File {
		v.pair.file = pair.File
		n, err := edge.Generation(pair.File)
		why := ""
		if err != nil {
			n, why = 0, err.Error()
		}
		v.m.remembered(n, true, why)
	}
	v.pair.ties = slices.Clone(pair.Tiebreak)
	return &own
}

// actPair executes what only pairs, and whoever asks the segment, need.
func (v *Virtual) actPair(a action) {
	edge, m := v.opts.Pair, v.m
	if edge == nil {
		return
	}
	switch a.kind {
	case actProbe:
		edge.Probe(m.vips[a.vip].name)
	case actAnnounce:
		if m.leaseEnd(a.vip) > v.now() {
			edge.Announce(m.vips[a.vip].name)
		}
	case actPing:
		sent := v.now()
		for k, tie := range v.pair.ties {
			edge.Ask(tie, func() {
				v.tellRun(func() {
					if v.m == m && k < len(v.pair.ties) && v.pair.ties[k] == tie {
						m.reached(v.now(), k, sent)
					}
				})
			})
		}
	case actSave:
		n := m.pair.saving
		edge.Save(v.pair.file, n, func(err error) {
			v.tellRun(func() {
				switch {
				case v.m != m:
				case err != nil:
					m.remembered(0, false, err.Error())
				default:
					m.remembered(n, false, "")
				}
			})
		})
	}
}
