package node

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/vip"
)

// reportLinks says how a peer is heard; nothing when there is one way only, of which all is said already.
func reportLinks(links []vip.PeerLink) []api.LinkReport {
	if len(links) < 2 {
		return nil
	}
	var rs []api.LinkReport
	for _, l := range links {
		age := l.Age.Milliseconds()
		if l.Age < 0 {
			age = -1
		}
		rs = append(rs, api.LinkReport{Address: l.Addr, Up: l.Up, AgeMs: age, RTTUs: l.RTT.Microseconds()})
	}
	return rs
}

// reachPatience is for how long another voter may be heard but not reached before that is worth an alarm: an agent that has just started
// has said so before it listens.
const reachPatience = 3 * time.Second

// reachAlarms are about voters that are heard and with which nothing can be agreed on. While a third node connects the two, nothing else
// shows it; without that one they could do nothing.
func (n *Node) reachAlarms(now time.Time, reaches map[string]cluster.Reach) []api.Alarm {
	var as []api.Alarm
	for _, name := range slices.Sorted(maps.Keys(reaches)) {
		way := reaches[name]
		if way.OK || way.Since.IsZero() || now.Sub(way.Since) < reachPatience {
			continue
		}
		as = append(as, api.Alarm{
			Severity: api.Warning, Node: n.conf.Name,
			What: fmt.Sprintf("%s is heard, but has not been reached over TCP for %v: %v", name, now.Sub(way.Since).Round(time.Second), way.Err),
			Hint: fmt.Sprintf("open the port of advertise (%d/tcp) between %s and %s in both directions: these two could not take over without a third node", advertise(n.conf).Port(), n.conf.Name, name),
		})
	}
	return as
}

// linkAlarms are what is wrong with this node's ways to the others and to the clients, while it is heard all the same.
func (n *Node) linkAlarms(guard vip.State) []api.Alarm {
	var as []api.Alarm
	add := func(hint, format string, args ...any) {
		as = append(as, api.Alarm{Severity: api.Warning, Node: n.conf.Name, What: fmt.Sprintf(format, args...), Hint: hint})
	}
	if !guard.Connected {
		return nil // an alarm of its own
	}
	restart := "`skein node drain " + n.conf.Name + "`, which moves its addresses away, `systemctl restart skein-guard skein` on that host, `skein node enable " + n.conf.Name + "`"
	if guard.Problem != "" {
		add("see guard.log in the data directory, or the journal of skein-guard; if the guard is of an older version: "+restart, "the guard goes on with what it was told before: %s", guard.Problem)
	}
	if guard.Unknown != "" {
		add(restart, "the guard of this node is of an older version than its agent, and knows nothing of %q: that has no effect", guard.Unknown)
	}
	if r := guard.Reads; r != (vip.Formats{}) && r.Newest < vip.OwnFormats().Newest {
		add("before the next upgrade: "+restart,
			"the guard of this node is of an older version than its agent: it reads heartbeats of %v, a new one %v", r, vip.OwnFormats())
	}
	for _, name := range slices.Sorted(maps.Keys(guard.Peers)) {
		if why := guard.Peers[name].NotUnderstood; why != "" {
			add("restart the older guard as the version of the other: `skein node drain NODE`, then `systemctl restart skein-guard skein` on that host",
				"%s is not understood, and counts as not heard: %s", name, why)
		}
	}
	broken := map[int]bool{} // links whose own end does not work: that every peer is silent there says nothing more
	for k, l := range guard.Links {
		if l.Problem != "" {
			broken[k] = true
			add("give this host the address, or mend advertise or heartbeat in node.hcl", "no heartbeats go out at %s: %s", l.Addr, l.Problem)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(guard.Peers)) {
		p := guard.Peers[name]
		for k, l := range p.Links {
			if !p.Alive || l.Up || broken[k] {
				continue
			}
			silent := "it never was heard there"
			if l.Age >= 0 {
				silent = fmt.Sprintf("silent for %v", l.Age.Round(time.Second))
			}
			add("mend the network between "+l.Addr+" and this host; the next failure of the other one counts as a dead node",
				"%s is not heard over heartbeat link %d (%s), %s; another one works", name, k+1, l.Addr, silent)
		}
	}
	if n.conf.Role == config.Balancer {
		for _, name := range slices.Sorted(maps.Keys(guard.Unable)) {
			add("skein vip explain "+name, "this node could not hold %s: %s", name, guard.Unable[name])
		}
	}
	return as
}
