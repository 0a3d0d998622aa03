package vip

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// The heartbeat on the wire in format 2, all numbers big-endian; format.go says what a later one may change:
//
//	 0  format                  1  which key, first byte of its fingerprint
//	 2  flags                   4  views   5  entries   6  profile   7  links
//	 8  from    16 to          24  boot   32  seq
//	40  echo boot              48  echo seq
//	56  echo delay µs          60  interval µs   64  promise µs   68  lateness µs
//	72  MAC, newest and oldest format that the sender reads (0, 0: this one)
//	80  index of voters        88  applied
//	96  links: echo seq, its end (4), echo delay µs (4)
//	    views: node (8), suspect (1)
//	    entries: vip (8), generation (8), index (8), node (8), flags (1), MAC (6)
//	    tail: what a later version has appended
//	    tag: HMAC-SHA256 over all before, its first 16 bytes
const (
	wireHead  = 96
	wireView  = 9
	wireEntry = 39
	wireLink  = 8
	wireTag   = 16
	wireTail  = 256 // at most, for all later versions together
	wireMax   = wireHead + MaxLinks*wireLink + (MaxPeers+1)*wireView + MaxVIPs*wireEntry + wireTail + wireTag
)

// codec signs, checks, packs and unpacks heartbeats. One goroutine uses it. It allocates only when keys change.
type codec struct {
	reads Formats
	keys  []wireKey // the first signs
	sum   [sha256.Size]byte
}

type wireKey struct {
	id  byte
	mac hash.Hash
}

// newCodec derives one key per secret and cluster, so that a secret shared by two clusters still keeps them apart.
func newCodec(cluster string, secrets [][]byte) *codec {
	c := &codec{reads: OwnFormats()}
	for _, s := range secrets {
		d := hmac.New(sha256.New, s)
		d.Write([]byte("skein heartbeat 1\x00" + cluster))
		key := d.Sum(nil)
		id := sha256.Sum256(key)
		c.keys = append(c.keys, wireKey{id: id[0], mac: hmac.New(sha256.New, key)})
	}
	return c
}

// tag is the authenticator of b, valid until the next call.
func (c *codec) tag(k wireKey, b []byte) []byte {
	k.mac.Reset()
	k.mac.Write(b)
	return k.mac.Sum(c.sum[:0])[:wireTag]
}

// pack appends m to b, in m's format, or in the oldest when it has none.
func (c *codec) pack(b []byte, m *message) []byte {
	be := binary.BigEndian
	start := len(b)
	b = append(b, cmp.Or(m.format, c.reads.Oldest), c.keys[0].id)
	b = be.AppendUint16(b, uint16(m.flags))
	b = append(b, byte(m.nviews), byte(m.nentries), m.profile, byte(m.nlinks))
	for _, n := range [...]uint64{uint64(m.from), uint64(m.to), m.boot, m.seq, m.echoBoot, m.echoSeq} {
		b = be.AppendUint64(b, n)
	}
	for _, n := range [...]int64{m.echoDelay, m.interval, m.promise, m.lateness} {
		b = be.AppendUint32(b, micros(n))
	}
	b = append(b, m.mac[:]...)
	b = append(b, m.reads.Newest, m.reads.Oldest)
	b = be.AppendUint64(b, m.votersIndex)
	b = be.AppendUint64(b, m.applied)
	for _, l := range m.links[:m.nlinks] {
		b = be.AppendUint32(b, l.seq)
		b = be.AppendUint32(b, micros(l.delay))
	}
	for _, v := range m.views[:m.nviews] {
		b = be.AppendUint64(b, uint64(v.node))
		s := byte(0)
		if v.suspect {
			s = 1
		}
		b = append(b, s)
	}
	for _, e := range m.entries[:m.nentries] {
		for _, n := range [...]uint64{uint64(e.vip), e.epoch.Generation, e.epoch.Index, uint64(e.node)} {
			b = be.AppendUint64(b, n)
		}
		b = append(b, byte(e.flags))
		b = append(b, e.mac[:]...)
	}
	return append(b, c.tag(c.keys[0], b[start:])...)
}

func micros(n int64) uint32 { return uint32(min(max(n, 0)/1000, 1<<32-1)) }

// unpack fills m from b and returns "", or why b is no heartbeat for us. m is undefined in that case.
func (c *codec) unpack(b []byte, m *message) string {
	be := binary.BigEndian
	if len(b) < wireHead+wireTag || len(b) > wireMax {
		return "wrong length"
	}
	if c.signer(b) < 0 {
		return "not signed with a key of this cluster"
	}
	if !c.reads.has(b[0]) {
		return otherFormat
	}
	nviews, nentries, nlinks := int(b[4]), int(b[5]), int(b[7])
	if nviews > MaxPeers+1 || nentries > MaxVIPs || nlinks > MaxLinks || len(b) < wireHead+nlinks*wireLink+nviews*wireView+nentries*wireEntry+wireTag {
		return "wrong length"
	}
	m.format, m.reads = b[0], readsOf(b)
	m.flags = msgFlags(be.Uint16(b[2:])) & flagsKnown
	m.nviews, m.nentries, m.nlinks, m.profile = nviews, nentries, nlinks, b[6]
	m.from, m.to = nodeID(be.Uint64(b[8:])), nodeID(be.Uint64(b[16:]))
	m.boot, m.seq = be.Uint64(b[24:]), be.Uint64(b[32:])
	m.echoBoot, m.echoSeq = be.Uint64(b[40:]), be.Uint64(b[48:])
	m.echoDelay, m.interval = int64(be.Uint32(b[56:]))*1000, int64(be.Uint32(b[60:]))*1000
	m.promise, m.lateness = int64(be.Uint32(b[64:]))*1000, int64(be.Uint32(b[68:]))*1000
	copy(m.mac[:], b[72:])
	m.votersIndex, m.applied = be.Uint64(b[80:]), be.Uint64(b[88:])
	b = b[wireHead:]
	for i := range m.links[:nlinks] {
		m.links[i] = linkEcho{seq: be.Uint32(b), delay: int64(be.Uint32(b[4:])) * 1000}
		b = b[wireLink:]
	}
	for i := range m.views[:nviews] {
		m.views[i] = view{node: nodeID(be.Uint64(b)), suspect: b[8] == 1}
		b = b[wireView:]
	}
	for i := range m.entries[:nentries] {
		m.entries[i] = entry{
			vip: vipID(be.Uint64(b)), epoch: Epoch{be.Uint64(b[8:]), be.Uint64(b[16:])}, node: nodeID(be.Uint64(b[24:])),
			flags: entryFlags(b[32]), mac: [6]byte(b[33:]),
		}
		b = b[wireEntry:]
	}
	return ""
}
