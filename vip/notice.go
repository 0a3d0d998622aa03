package vip

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"net/netip"
	"slices"
)

// A notice tells a node that the cluster was recovered without it (skein cluster recover), so that what it has is of an older
// generation. It goes to nodes that may come back with old data: once a second, and in answer to each of their heartbeats, under the key
// that they know. It stays true for ever, so that a recorded one does no harm. All numbers are big-endian:
//
//	0  version (200)   1  which key, first byte of its fingerprint   2  zero (6)
//	8  from   16  to   24  generation
//	   tag: HMAC-SHA256 over all before, its first 16 bytes
const (
	noticeVersion = 200
	noticeHead    = 32
	noticeLen     = noticeHead + wireTag
	noticeEvery   = 1000 * ms
	noticeAnswer  = 20 * ms // at most so often
)

// Former is a node that the cluster was recovered without.
type Former struct {
	Name string
	Addr netip.AddrPort
	Also []netip.AddrPort
	Keys [][]byte // that it knows
}

// MaxFormer bounds the nodes that are told.
const MaxFormer = 32

// Superseded is what this node was told by one that went on without it.
type Superseded struct {
	By         string
	Generation uint64 // of the cluster there
}

// formers are the nodes that have to be told, and what is needed to hear the like from others.
type formers struct {
	name       string // ours
	self       nodeID
	cluster    string
	generation uint64
	own        *codec
	keys       [][]byte // of own
	peers      []Peer
	all        []former
	next       int64 // when to tell all of them again

	heard    Superseded // the zero value: nothing
	heardKey []byte
}

type former struct {
	Former
	id    nodeID
	codec *codec
	again int64 // not to answer it before
}

// configure takes a checked Setup. What was heard stands while the node that said so could still say it.
func (f *formers) configure(s *Setup) {
	f.name, f.self, f.generation, f.peers = s.Self, idOf(s.Self), s.Generation, s.Peers
	if f.own == nil || f.cluster != s.ClusterID || !slices.EqualFunc(s.Keys, f.keys, bytes.Equal) {
		f.own, f.keys = newCodec(s.ClusterID, s.Keys), s.Keys
	}
	var all []former
	for _, c := range s.Former {
		i := slices.IndexFunc(f.all, func(o former) bool {
			return f.cluster == s.ClusterID && o.Name == c.Name && slices.EqualFunc(o.Keys, c.Keys, bytes.Equal)
		})
		told := former{id: idOf(c.Name)}
		if i >= 0 {
			told = f.all[i]
		} else {
			told.codec = newCodec(s.ClusterID, c.Keys)
		}
		told.Former = c
		all = append(all, told)
	}
	f.all, f.cluster = all, s.ClusterID
	if by := f.heard.By; by != "" {
		if name, _ := f.speaker(idOf(by), f.heardKey); name == "" || !f.newer(f.heard) {
			f.heard, f.heardKey = Superseded{}, nil
		}
	}
}

// speaker is the name of a node that may say anything under that key, "" if it may not, and the codec that knows it.
func (f *formers) speaker(id nodeID, key []byte) (name string, c *codec) {
	has := func(keys [][]byte) bool {
		return key == nil || slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
	}
	for i := range f.peers {
		if idOf(f.peers[i].Name) == id && has(f.keys) {
			return f.peers[i].Name, f.own
		}
	}
	for i := range f.all {
		if f.all[i].id == id && has(f.all[i].Keys) {
			return f.all[i].Name, f.all[i].codec
		}
	}
	return "", nil
}

// newer reports whether s is for us to give way to. Of two that were recovered without each other the first by name goes on.
func (f *formers) newer(s Superseded) bool {
	return s.Generation > f.generation || s.Generation == f.generation && s.By < f.name
}

// due tells everybody once in a while. tell may be called several times for one node: once per address.
func (f *formers) due(now int64, buf []byte, tell func(to netip.AddrPort, b []byte)) {
	if len(f.all) == 0 || now < f.next {
		return
	}
	f.next = now + noticeEvery
	for i := range f.all {
		f.tell(&f.all[i], buf, tell)
	}
}

func (f *formers) tell(p *former, buf []byte, tell func(to netip.AddrPort, b []byte)) {
	be := binary.BigEndian
	b := append(buf[:0], noticeVersion, p.codec.keys[0].id, 0, 0, 0, 0, 0, 0)
	b = be.AppendUint64(b, uint64(f.self))
	b = be.AppendUint64(b, uint64(p.id))
	b = be.AppendUint64(b, f.generation)
	b = append(b, p.codec.tag(p.codec.keys[0], b)...)
	tell(p.Addr, b)
	for _, a := range p.Also {
		tell(a, b)
	}
}

// answer looks whether b, which is no heartbeat of this cluster, is one of a former node, and tells that node.
func (f *formers) answer(now int64, b, buf []byte, tell func(to netip.AddrPort, b []byte)) bool {
	if len(f.all) == 0 || len(b) < wireHead+wireTag {
		return false
	}
	from := nodeID(binary.BigEndian.Uint64(b[8:]))
	for i := range f.all {
		p := &f.all[i]
		if p.id != from || nodeID(binary.BigEndian.Uint64(b[16:])) != f.self || p.codec.signer(b) < 0 {
			continue
		}
		if now >= p.again {
			p.again = now + noticeAnswer
			f.tell(p, buf, tell)
		}
		return true
	}
	return false
}

// hear takes b, and reports whether it is a notice that tells something new.
func (f *formers) hear(b []byte) (news bool) {
	if f.own == nil || len(b) != noticeLen || b[0] != noticeVersion {
		return false
	}
	be := binary.BigEndian
	if nodeID(be.Uint64(b[16:])) != f.self {
		return false
	}
	name, c := f.speaker(nodeID(be.Uint64(b[8:])), nil)
	s := Superseded{By: name, Generation: be.Uint64(b[24:])}
	if name == "" || s == f.heard || !f.newer(s) {
		return false
	}
	k := c.signer(b)
	if k < 0 {
		return false
	}
	f.heard, f.heardKey = s, f.keys[min(k, len(f.keys)-1)]
	for i := range f.all {
		if f.all[i].codec == c {
			f.heardKey = f.all[i].Keys[k]
		}
	}
	return true
}

// isNotice tells a notice from a heartbeat.
func isNotice(b []byte) bool { return len(b) > 0 && b[0] == noticeVersion }

// signer is which of c's keys has made the tag at the end of b, -1: none.
func (c *codec) signer(b []byte) int {
	body, tag := b[:len(b)-wireTag], b[len(b)-wireTag:]
	return slices.IndexFunc(c.keys, func(k wireKey) bool { return k.id == b[1] && hmac.Equal(c.tag(k, body), tag) })
}

// notice takes what isNotice. It reports whether it tells something new.
func (m *machine) notice(now int64, b []byte) bool {
	if !m.former.hear(b) {
		return false
	}
	m.chatty = true
	m.report()
	m.step(now)
	return true
}
