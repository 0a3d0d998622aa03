package state

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// members reads "a* b c!" : * votes, ! is not ready.
func members(s string) (ms []Member) {
	for _, w := range strings.Fields(s) {
		ms = append(ms, Member{Name: w[:1], Addr: addrOf(w[:1]), Voter: strings.Contains(w, "*"), Ready: !strings.Contains(w, "!")})
	}
	return ms
}

func addrOf(name string) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, name[0]}), 7940)
}

func nodes(s string) (ns []Node) {
	for _, name := range strings.Fields(s) {
		ns = append(ns, Node{Name: name[:1], Advertise: addrOf(name[:1]), Role: Balancer})
	}
	return ns
}

func TestVoters(t *testing.T) {
	for _, c := range []struct{ why, nodes, now, leader, want string }{
		{"one node votes", "a", "a*", "a", ""},
		{"the second is added and does not vote", "a b", "a*", "a", "add non-voter b"},
		{"two: one vote", "a b", "a* b", "a", ""},
		{"the third is added", "a b c", "a* b", "a", "add non-voter c"},
		{"three: all vote, one at a time", "a b c", "a* b c", "a", "add voter b"},
		{"then the next", "a b c", "a* b* c", "a", "add voter c"},
		{"then all is done", "a b c", "a* b* c*", "b", ""},
		{"not over two voters while the third cannot vote", "a b c", "a* b c!", "a", ""},
		{"not while none can", "a b c", "a* b! c!", "a", ""},
		{"a third voter that died leaves two of three: a fourth may vote", "a b c d", "a* b* c*! d", "a", "add voter d"},
		{"even numbers are fine", "a b c d", "a* b* c* d", "a", "add voter d"},
		{"who is not ready waits, others do not", "a b c d e", "a* b* c* d! e", "a", "add voter e"},
		{"who is no node goes first", "a b c d", "a* b* x*", "a", "remove x"},
		{"the leader is no node: it goes last", "a b", "a* b* c*", "c", "remove c"},
		{"the leader is no node, and the others do not vote yet", "a b", "a b c*", "c", ""},
		{"the leader is the last voter", "a", "a b*", "b", ""},
		{"of two voters one goes back to listening", "a b", "a* b*", "b", "demote a"},
		{"no node at all", "", "a*", "a", ""},
	} {
		got := ""
		if ch, ok := Voters(nodes(c.nodes), members(c.now), c.leader); ok {
			got = fmt.Sprintf("%v %s", ch.Kind, ch.Name)
		}
		if got != c.want {
			t.Errorf("%s: nodes %q, now %q, leader %s: got %q, want %q", c.why, c.nodes, c.now, c.leader, got, c.want)
		}
	}
}

func TestVotersFollowANodeToItsNewAddress(t *testing.T) {
	ns := nodes("a b c")
	ns[1].Advertise = addrOf("z")
	for now, want := range map[string]ChangeKind{"a* b* c*": AddVoter, "a* b c": AddNonvoter} {
		if c, ok := Voters(ns, members(now), "a"); !ok || c != (Change{want, "b", addrOf("z")}) {
			t.Errorf("%s: %v %v, %v", now, c.Kind, c, ok)
		}
	}
}

// From any configuration of Raft and for any set of nodes, one change after the other leads to the right one, and stays there.
func TestVotersSettle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 4))
	for range 5000 {
		var want, now []string
		for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
			if n == "a" || r.IntN(2) == 0 {
				want = append(want, n)
			}
			switch {
			case n == "a" || r.IntN(3) == 0:
				now = append(now, n+"*")
			case r.IntN(2) == 0:
				now = append(now, n)
			}
		}
		ns, ms := nodes(strings.Join(want, " ")), members(strings.Join(now, " "))
		for step := 0; ; step++ {
			c, ok := Voters(ns, ms, "a")
			if !ok {
				break
			}
			if step > 20 {
				t.Fatalf("nodes %v, from %v: never ends, now %v", want, now, ms)
			}
			i := slices.IndexFunc(ms, func(m Member) bool { return m.Name == c.Name })
			switch c.Kind {
			case RemoveMember:
				ms = slices.Delete(ms, i, i+1)
			case Demote:
				ms[i].Voter = false
			default:
				if i < 0 {
					ms, i = append(ms, Member{Name: c.Name, Ready: true}), len(ms)
				}
				ms[i].Addr, ms[i].Voter = c.Addr, c.Kind == AddVoter
			}
		}
		voters := 0
		for _, m := range ms {
			if m.Voter {
				voters++
			}
		}
		wantVoters := len(ns)
		if len(ns) == 2 {
			wantVoters = 1
		}
		if len(ms) != len(ns) || voters != wantVoters {
			t.Fatalf("nodes %v, from %v: ended at %v", want, now, ms)
		}
	}
}
