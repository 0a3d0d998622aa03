package vip

import (
	"encoding/binary"
	"fmt"
)

// This file is how guards of different versions understand one another. A guard runs until it is restarted, so two of them may be
// further apart than their agents, and what the log or gossip says of the agents says nothing of them: each says itself what it reads.
//
// What a later version adds:
//
//   - What an older one may overlook is a flag, or goes into the tail: an older reader skips both. The format stays.
//   - Everything else is a new format, and the version before it is read on: a guard reads two. To each peer it writes the newest that
//     both read.
//
// For ever, in every version: who is not heard gets the oldest (were it the newest to one of two, they might never meet). For ever, in
// every format: the bytes 0 and 1, from, to, what the sender reads, a head of at least wireHead, the tag; format 200 is a
// notice. So that even whoever is too far away can be named.
const (
	formatOldest = 2
	formatNewest = 2
)

// Formats are those of heartbeats that a guard reads. The zero value: it did not say.
type Formats struct{ Oldest, Newest byte }

// OwnFormats are those that a guard of this version reads.
func OwnFormats() Formats { return Formats{formatOldest, formatNewest} }

// Meet reports whether guards that read f and o understand one another.
func (f Formats) Meet(o Formats) bool { return f.Oldest <= o.Newest && o.Oldest <= f.Newest }

func (f Formats) has(format byte) bool { return f.Oldest <= format && format <= f.Newest }

func (f Formats) String() string {
	if f.Oldest == f.Newest {
		return fmt.Sprintf("format %d", f.Oldest)
	}
	return fmt.Sprintf("formats %d to %d", f.Oldest, f.Newest)
}

// readsOf is what the sender of b reads.
func readsOf(b []byte) Formats {
	if b[78] == 0 && b[79] == 0 { // it does not say
		return Formats{b[0], b[0]}
	}
	return Formats{Newest: b[78], Oldest: b[79]}
}

// otherFormat is said of an authentic heartbeat that this guard does not read.
const otherFormat = "in another format"

// formatFor is the format for what is said to p: the newest that both read. Who is not heard may have been replaced by another version
// and gets our oldest. If any format is read by both, one's oldest is: that one is heard then, says what it reads, and is answered.
func (m *machine) formatFor(p *peer, greeting bool) byte {
	its, heard := p.reads, p.ever && !p.suspect
	if greeting {
		its, heard = p.newReads, true
	}
	if !heard {
		return m.reads.Oldest
	}
	return max(m.reads.Oldest, min(m.reads.Newest, its.Newest))
}

// unread is what was heard of a peer that is not understood. The zero value: nothing.
type unread struct {
	at          int64
	reads, said Formats // said: what was told of already
}

// hearUnread takes an authentic heartbeat in another format. It returns who is too far away, and why, when that is news.
func (m *machine) hearUnread(now int64, b []byte) (name, why string) {
	be := binary.BigEndian
	i := m.peerIndex(nodeID(be.Uint64(b[8:])))
	if i < 0 || nodeID(be.Uint64(b[16:])) != m.self {
		return "", ""
	}
	p := m.peers[i]
	p.unread.at, p.unread.reads = now, readsOf(b)
	why = m.unreadWhy(now, p)
	if why == "" || p.unread.said == p.unread.reads {
		return "", ""
	}
	p.unread.said = p.unread.reads
	m.report()
	return p.name, why
}

// unreadWhy is why p is not heard though it speaks; "" when there is nothing to say. Of a peer that is heard there is nothing: what can't
// be read may be a recording.
func (m *machine) unreadWhy(now int64, p *peer) string {
	u := p.unread
	if u.at == 0 || now-u.at > linkSilent || p.ever && !p.suspect {
		return ""
	}
	const text = "its guard reads heartbeats of %v, the one here %v: %s is too old"
	switch {
	case u.reads.Meet(m.reads): // they are about to hear each other
		return ""
	case u.reads.Newest < m.reads.Oldest:
		return fmt.Sprintf(text, u.reads, m.reads, "that one")
	}
	return fmt.Sprintf(text, u.reads, m.reads, "the one here")
}
