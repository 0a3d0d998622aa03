package vip

import (
	"net/netip"
	"time"
)

// peer is another node.
type peer struct {
	// Immutable until the next setup.
	id      nodeID
	name    string
	addrs   []netip.AddrPort // by link
	voter   bool
	witness bool

	// What it last said.
	boot        uint64
	reads       Formats
	format      byte   // of its newest message
	newBoot     uint64 // a life that has not proved yet to be the present one
	newSeq      uint64
	newReads    Formats
	seq         uint64
	window      uint64 // bit k: seq-k of its present life was heard
	heard       int64  // when; at first, when we learned of the peer
	ever        bool   // it was heard at all
	detect      int64  // after how long without a word we suspect it
	flags       msgFlags
	lateness    int64
	profile     uint8
	mac         [6]byte
	votersIndex uint64
	applied     uint64
	suspects    []nodeID // whom it suspects
	claims      []claim  // by our index of VIPs

	// What we make of it.
	suspect   bool
	confirmed bool // a majority of voters suspects it, or it said itself that it is gone
	buried    bool // a majority does, and has not heard it for so long that what it had parked is lost, too
	unread    unread
	rtt       minRTT
	echoed    uint64 // which message of ours gave the last round trip
	links     [MaxLinks]way

	// What we sent.
	seqOut    uint64
	answering bool // an answer is among the actions
	sent      [sentRing]sent
	leases    []lease // what it granted us, by our index of VIPs
}

// note remembers that message seq of the peer's present life was heard. False: it was before, or is too old to tell.
func (p *peer) note(seq uint64) bool {
	if seq > p.seq {
		p.window, p.seq = p.window<<(seq-p.seq)|1, seq
		return true
	}
	bit := uint64(1) << (p.seq - seq)
	fresh := bit != 0 && p.window&bit == 0
	p.window |= bit
	return fresh
}

// way is one of the links over which a peer is heard.
type way struct {
	seq   uint64 // the newest of the peer's present life that came over it
	heard int64
	up    bool // something was heard of late
	rtt   minRTT
}

// linkSilent is after how long without a word a link is down. That is nothing but an alarm while another one works, so it waits
// for longer than any detection time.
const linkSilent = maxPromise

// minRTT keeps the least round trip of the last five to ten seconds: one that took long, since somebody was late, says nothing of
// the distance, and must not become the least of late because the window has just begun.
type minRTT struct {
	cur, old int64
	n        int // samples in cur
	since    int64
	counted  int64 // when the last one was
}

const (
	rttApart   = 5 * ms // samples that are closer count as one: a guard that was stopped reads what waited in one go, all of it late
	rttWindow  = int64(5 * time.Second)
	rttSamples = 8 // that a window needs to count; the silence of a guard that starts lasts for six times as many
)

func (r *minRTT) add(now, d int64) {
	if d < 0 {
		return
	}
	if now-r.since >= rttWindow && r.n >= rttSamples {
		*r = minRTT{old: r.cur, since: now}
	}
	if now-r.counted >= rttApart {
		r.n, r.counted = r.n+1, now
	}
	if r.cur == 0 || d < r.cur {
		r.cur = max(d, 1)
	}
}

// least is 0 until enough was seen to say.
func (r *minRTT) least() int64 {
	switch {
	case r.n >= rttSamples && r.old > 0:
		return min(r.old, r.cur)
	case r.n >= rttSamples:
		return r.cur
	}
	return r.old
}

// sentRing is how many messages to a peer are remembered. At 20 ms and an answer to each of the peer's own they last for more
// than 600 ms, over ten leases; an older answer is worth nothing anyway.
const sentRing = 64

// sent is one message that an answer may refer to.
type sent struct {
	seq     uint64
	n       uint64 // machine.sends when it was sent
	at      int64
	lease   int64
	claimed uint64 // bit i: it asked for vips[i]
	held    uint64 // bit i: it said that vips[i] is held
}

// reindex moves what is kept per VIP to the VIPs' new places. Messages under way refer to the old ones and are not counted.
func (p *peer) reindex(index []int) {
	claims, leases := make([]claim, len(index)), make([]lease, len(index))
	for i, j := range index {
		if j >= 0 && j < len(p.claims) {
			claims[i], leases[i] = p.claims[j], p.leases[j]
		}
	}
	p.claims, p.leases = claims, leases
	for i := range p.sent {
		p.sent[i].claimed, p.sent[i].held = 0, 0
	}
}
