package state

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The methods in this file are the commands. Each works on a View that nobody else has seen yet and that shares its slices and
// maps with the one before it: it replaces them, it never writes into them. A method that refuses may leave the View half
// changed, its caller drops it then.

// MaxText is the size up to which a configuration is taken, in bytes.
const MaxText = 4 << 20

func (v *View) found(c Found) Result {
	if v.Founded() {
		return refuse(Exists, "this cluster was founded already, as %s", v.Cluster.ID)
	}
	if c.ClusterID == "" {
		return refuse(Invalid, "a cluster needs an ID")
	}
	if r := checkKeys(c.Gossip, c.Heartbeat); r.Code != OK {
		return r
	}
	v.Cluster = Cluster{ID: c.ClusterID, Generation: 1, Founded: c.At.UTC(), Level: c.Level}
	v.CA = c.CA
	v.Keys = Keys{Gossip: [][]byte{c.Gossip}, Heartbeat: [][]byte{c.Heartbeat}}
	return v.putNode(PutNode{Node: c.Node, Level: c.Level})
}

func (v *View) setConfig(c SetConfig) Result {
	if c.BasedOn != v.Revision.Number {
		return refuse(StaleRevision, "the configuration is at revision %d, and this change was made from revision %d",
			v.Revision.Number, c.BasedOn)
	}
	if len(c.Text) > MaxText {
		return refuse(Invalid, "the configuration has %d bytes, more than the %d that are taken", len(c.Text), MaxText)
	}
	slices.Sort(c.Scope.Certificates)
	if r := v.missingCertificate(&c.Scope); r.Code != OK {
		return r
	}
	v.Revision = ConfigRevision{
		Number: c.BasedOn + 1, Index: v.Index, Text: c.Text, Message: c.Message, Author: c.Author, At: c.At.UTC(),
	}
	v.Scope = c.Scope
	slices.Sort(v.Scope.VIPs)
	v.Scope.VIPs = slices.Compact(v.Scope.VIPs)
	slices.SortFunc(v.Scope.Servers, ServerKey.Compare)
	v.Scope.Servers = slices.Compact(v.Scope.Servers)
	slices.Sort(v.Scope.Lists)
	v.Scope.Lists = slices.Compact(v.Scope.Lists)

	var notes []string
	if gone := missing(v.Servers, ServerKey.Compare, v.Scope.HasServer); len(gone) > 0 {
		v.Servers = maps.Clone(v.Servers)
		for _, k := range gone {
			notes = append(notes, fmt.Sprintf("forgot what was set on server %s, which is gone", k))
			delete(v.Servers, k)
		}
	}
	notes = append(notes, v.forgetLists()...)
	if gone := missing(v.Placements, strings.Compare, v.Scope.HasVIP); len(gone) > 0 {
		v.Placements = maps.Clone(v.Placements)
		for _, vip := range gone {
			notes = append(notes, fmt.Sprintf("took vip %s, which is gone, from %s", vip, v.Placements[vip].Node))
			delete(v.Placements, vip)
		}
	}
	return Result{Message: strings.Join(notes, "; ")}
}

// missing returns the keys of m that are not in scope, sorted.
func missing[K comparable, V any](m map[K]V, compare func(K, K) int, in func(K) bool) []K {
	var gone []K
	for k := range m {
		if !in(k) {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, compare)
	return gone
}

func (v *View) place(c Place) Result {
	if !v.Scope.HasVIP(c.VIP) {
		return refuse(UnknownVIP, "vip %q is not in the configuration", c.VIP)
	}
	n, ok := v.Node(c.Node)
	switch {
	case !ok:
		return refuse(UnknownNode, "node %q is not a member", c.Node)
	case n.Role != Balancer:
		return refuse(Invalid, "node %q is a %s and holds no addresses", c.Node, n.Role)
	}
	if r := v.expect(c.VIP, c.Expect); r.Code != OK {
		return r
	}
	p := Placement{VIP: c.VIP, Node: c.Node, Epoch: Epoch{v.Cluster.Generation, v.Index}, First: c.Expect == Epoch{}}
	p.Ring = join(v.Placements[c.VIP].Ring, c.Node)
	v.Placements = with(v.Placements, c.VIP, p)
	return Result{Epoch: p.Epoch}
}

func (v *View) unplace(c Unplace) Result {
	if r := v.expect(c.VIP, c.Expect); r.Code != OK {
		return r
	}
	v.Placements = maps.Clone(v.Placements)
	delete(v.Placements, c.VIP)
	return Result{}
}

// expect refuses what was decided on another placement than the one that stands.
func (v *View) expect(vip string, e Epoch) Result {
	now := v.Placements[vip].Epoch
	if now == e {
		return Result{}
	}
	placed := func(e Epoch) string {
		if e == (Epoch{}) {
			return "on no node"
		}
		return "placed at " + e.String()
	}
	r := refuse(StaleEpoch, "vip %q is %s now, and this was decided when it was %s", vip, placed(now), placed(e))
	r.Epoch = now
	return r
}

func (v *View) setServer(c SetServer) Result {
	k := ServerKey{c.Backend, c.Server}
	if !v.Scope.HasServer(k) {
		return refuse(UnknownServer, "server %q of backend %q is not in the configuration", c.Server, c.Backend)
	}
	a := v.Admin(c.Backend, c.Server)
	switch c.State {
	case "":
	case Enabled, Drain, Disabled:
		a.State = c.State
	default:
		return refuse(Invalid, "a server's state is %s, %s or %s, not %q", Enabled, Drain, Disabled, c.State)
	}
	if c.Weight != nil {
		if *c.Weight < -1 || *c.Weight > 256 {
			return refuse(Invalid, "a weight is 0 to 256, or -1 for the file's, not %d", *c.Weight)
		}
		a.Weight = *c.Weight
	}
	a.By, a.At = c.By, c.At.UTC()
	if a.State == Default.State && a.Weight == Default.Weight {
		v.Servers = maps.Clone(v.Servers)
		delete(v.Servers, k)
		return Result{}
	}
	v.Servers = with(v.Servers, k, a)
	return Result{}
}

func (v *View) putNode(c PutNode) Result {
	n := c.Node
	switch {
	case n.Name == "":
		return refuse(Invalid, "a node needs a name")
	case !n.Advertise.IsValid():
		return refuse(Invalid, "node %q needs an address", n.Name)
	case n.Role != Balancer && n.Role != Witness:
		return refuse(Invalid, "a node's role is %s or %s, not %q", Balancer, Witness, n.Role)
	case n.Fingerprint == "":
		return refuse(Invalid, "node %q needs a certificate", n.Name)
	case v.Refused(n.Fingerprint):
		return refuse(Removed, "node %q was removed and its certificate is refused; "+
			"to come back it joins anew with an empty data_dir", v.Removed[n.Fingerprint])
	}
	i, ok := v.node(n.Name)
	if !ok {
		if c.Replaces != "" {
			return refuse(UnknownNode, "node %q is not a member", n.Name)
		}
		if v.Level() > 1 && c.Level < v.Level() {
			return refuse(Invalid, "node %q applies commands up to level %d, and the cluster is at level %d; install the version that the cluster runs",
				n.Name, max(1, c.Level), v.Level())
		}
		n.JoinedIndex, n.Former = v.Index, nil
		v.Nodes = slices.Insert(slices.Clone(v.Nodes), i, n)
		v.forgetFormer(n)
		return Result{}
	}
	old := v.Nodes[i]
	if old.Fingerprint != n.Fingerprint && old.Fingerprint != c.Replaces {
		return refuse(Exists, "the name %q is taken; choose another one, or remove that node first: skein node remove %s",
			n.Name, n.Name)
	}
	n.JoinedIndex, n.Former = old.JoinedIndex, old.Former
	if old.Fingerprint != n.Fingerprint {
		n.Former = append(slices.Clone(old.Former), old.Fingerprint)
	}
	v.Nodes = slices.Clone(v.Nodes)
	v.Nodes[i] = n
	return Result{}
}

func (v *View) removeNode(c RemoveNode) Result {
	i, ok := v.node(c.Name)
	if !ok {
		return refuse(UnknownNode, "node %q is not a member", c.Name)
	}
	if len(v.Nodes) == 1 {
		return refuse(Invalid, "node %q is the last one; a cluster ends by stopping it", c.Name)
	}
	n := v.Nodes[i]
	for _, f := range append([]string{n.Fingerprint}, n.Former...) {
		v.Removed = with(v.Removed, f, n.Name)
	}
	v.Nodes = slices.Delete(slices.Clone(v.Nodes), i, i+1)
	v.forgetNode(c.Name)
	if r := checkKeys(c.Gossip, c.Heartbeat); r.Code != OK {
		return r
	}
	v.Keys = Keys{Gossip: rotate(v.Keys.Gossip, c.Gossip, 2), Heartbeat: rotate(v.Keys.Heartbeat, c.Heartbeat, 2)}
	return Result{}
}

func (v *View) rotateKeys(c RotateKeys) Result {
	if c.Keep < 1 {
		return refuse(Invalid, "at least one key has to be kept")
	}
	if len(c.Gossip) > 0 || len(c.Heartbeat) > 0 {
		if r := checkKeys(c.Gossip, c.Heartbeat); r.Code != OK {
			return r
		}
	}
	v.Keys = Keys{Gossip: rotate(v.Keys.Gossip, c.Gossip, c.Keep), Heartbeat: rotate(v.Keys.Heartbeat, c.Heartbeat, c.Keep)}
	return Result{}
}

func checkKeys(gossip, heartbeat []byte) Result {
	if n := len(gossip); n != 16 && n != 24 && n != 32 {
		return refuse(Invalid, "a gossip key has 16, 24 or 32 bytes, not %d", n)
	}
	if n := len(heartbeat); n != 32 {
		return refuse(Invalid, "a heartbeat key has 32 bytes, not %d", n)
	}
	return Result{}
}

// rotate puts key, when there is one, before keys and returns the newest, at most keep.
func rotate(keys [][]byte, key []byte, keep int) [][]byte {
	if len(key) > 0 && !(len(keys) > 0 && bytes.Equal(keys[0], key)) {
		keys = append([][]byte{key}, keys...)
	}
	return slices.Clone(keys[:min(keep, len(keys))])
}

func (v *View) putToken(c PutToken, now uint64) Result {
	i, ok := v.token(c.ID)
	switch {
	case ok:
		return refuse(Exists, "a token with the ID %q exists", c.ID)
	case c.ID == "" || len(c.SecretHash) == 0:
		return refuse(Invalid, "a token needs an ID and a secret")
	case c.Role != Balancer && c.Role != Witness:
		return refuse(Invalid, "a token's role is %s or %s, not %q", Balancer, Witness, c.Role)
	case c.TTL < time.Second || c.TTL > 366*24*time.Hour:
		return refuse(Invalid, "a token lives for a second to a year, not for %v", c.TTL)
	case c.Uses < 1:
		return refuse(Invalid, "a token has at least one use, not %d", c.Uses)
	}
	v.Tokens = slices.Insert(slices.Clone(v.Tokens), i, Token{
		ID: c.ID, SecretHash: c.SecretHash, Role: c.Role, Expires: now + uint64(c.TTL/time.Millisecond), Uses: c.Uses,
	})
	return Result{}
}

func (v *View) useToken(c UseToken, now uint64) Result {
	i, ok := v.token(c.ID)
	if !ok || !bytes.Equal(v.Tokens[i].SecretHash, c.SecretHash) || v.Tokens[i].Expires <= now {
		return refuse(BadToken, "the token is unknown or has expired; get a new one on a member: skein cluster token")
	}
	t := v.Tokens[i]
	switch {
	case t.Role != c.Role:
		return refuse(BadToken, "the token is for a %s, and this host is to be a %s; "+
			"get one on a member: skein cluster token --role %s", t.Role, c.Role, c.Role)
	case slices.Contains(t.UsedBy, c.By):
		return Result{}
	case t.Left() < 1:
		return refuse(BadToken, "the token was used already; get a new one on a member: skein cluster token")
	}
	t.UsedBy = append(slices.Clone(t.UsedBy), c.By)
	v.Tokens = slices.Clone(v.Tokens)
	v.Tokens[i] = t
	return Result{}
}

func (v *View) expireTokens(now uint64) {
	v.Tokens = slices.DeleteFunc(slices.Clone(v.Tokens), func(t Token) bool { return t.Expires <= now })
}

// with returns a copy of m in which k is v.
func with[K cmp.Ordered | ServerKey, V any](m map[K]V, k K, v V) map[K]V {
	c := make(map[K]V, len(m)+1)
	maps.Copy(c, m)
	c[k] = v
	return c
}
