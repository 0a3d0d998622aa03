package state

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/golden"
)

// TestTranscripts replays testdata/*.txt: a command, the lines that belong to it, "----", what came of it, an empty line.
func TestTranscripts(t *testing.T) {
	golden.Each(t, "testdata/*.txt", 5, func(t *testing.T, text string) string {
		s := &script{t: t, m: New()}
		return golden.Blocks(text, func(command, rest string) string { return s.run(strings.Fields(command), rest) })
	})
}

// script is one machine and the language of the transcripts, one case a verb.
type script struct {
	t     *testing.T
	m     *Machine
	index uint64
}

type arguments map[string]string

func (a arguments) num(name string) uint64 {
	n, _ := strconv.ParseUint(a[name], 10, 64)
	return n
}

func (a arguments) epoch(name string) (e Epoch) {
	_, _ = fmt.Sscanf(a[name], "%d.%d", &e.Generation, &e.Index)
	return e
}

func fixedKey(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func (a arguments) key(name string, n int) []byte {
	if a[name] == "" {
		return nil
	}
	return fixedKey(a[name][0], n)
}

func (a arguments) node() Node {
	n := Node{Name: a["name"], Role: Role(a["role"]), Fingerprint: a["cert"], Advertise: netip.MustParseAddrPort("198.18.0.1:7940")}
	if n.Role == "" {
		n.Role = Balancer
	}
	if a["addr"] != "" {
		n.Advertise = netip.MustParseAddrPort(a["addr"])
	}
	return n
}

func (s *script) run(words []string, text string) string {
	a := arguments{}
	var bare []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			a[k] = v
		} else {
			bare = append(bare, w)
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	switch words[0] {
	case "found": // found name=lb1 cert=c1
		return s.apply(Found{ClusterID: "c-1", CA: CA{[]byte("cert"), []byte("key")}, Gossip: a.key("gossip", 32),
			Heartbeat: a.key("heartbeat", 32), Node: a.node(), At: at})
	case "config": // config based=0, then the text
		c, err := s.m.parse([]byte(text))
		if err != nil {
			return "the script's text is wrong: " + err.Error() + "\n"
		}
		return s.apply(SetConfig{Text: []byte(text), Scope: ScopeOf(c), Message: a["message"], Author: a["by"], At: at,
			BasedOn: a.num("based")})
	case "version": // version level=1 starts the script again with a machine of that version
		s.m = NewAt(int(a.num("level")))
		return ""
	case "raise": // raise to=2 members=lb1,lb2 by=0.2.0
		return s.apply(Raise{To: int(a.num("to")), Version: a["by"], Members: strings.Split(a["members"], ",")})
	case "upgrade": // upgrade level=2: another version reads the snapshot of the present one
		return s.upgrade(int(a.num("level")))
	case "level":
		c := s.m.Views().Get().Cluster
		return fmt.Sprintf("%d, by %q\n", s.m.Views().Get().Level(), c.LevelVersion)
	case "place": // place vip=public node=lb1 expect=1.4
		return s.apply(Place{VIP: a["vip"], Node: a["node"], Expect: a.epoch("expect")})
	case "move": // move vip=public node=lb1 expect=1.4 drain=5m asked=yes
		drain, _ := time.ParseDuration(a["drain"])
		return s.apply(Move{VIP: a["vip"], Node: a["node"], Expect: a.epoch("expect"), Drain: drain, Asked: a["asked"] != ""})
	case "drain": // drain name=lb1 for=5m by=ann
		drain, _ := time.ParseDuration(a["for"])
		return s.apply(SetNode{Name: a["name"], Drained: true, Drain: drain, By: a["by"], At: at})
	case "enable":
		return s.apply(SetNode{Name: a["name"], By: a["by"], At: at})
	case "away": // away node=lb1 for=2s lb2=fit: how its VIPs leave a node that stops
		drain, _ := time.ParseDuration(a["for"])
		node := a["node"]
		delete(a, "node")
		delete(a, "for")
		health, err := a.health()
		if err != nil {
			return err.Error() + "\n"
		}
		return decisions(Away(s.m.Views().Get(), health, node, drain), func(Command) string { return "" })
	case "unplace":
		return s.apply(Unplace{VIP: a["vip"], Expect: a.epoch("expect")})
	case "server": // server backend=shop server=s1 state=drain weight=3
		c := SetServer{Backend: a["backend"], Server: a["server"], State: AdminState(a["state"]), By: a["by"], At: at}
		if a["weight"] != "" {
			w, _ := strconv.Atoi(a["weight"])
			c.Weight = &w
		}
		return s.apply(c)
	case "list": // list name=bad by=ann add=198.18.0.0/24,198.18.1.1/32 remove=.. clear=.. or clear=all
		c := SetList{List: a["name"], By: a["by"], At: at}
		for _, p := range []struct {
			word string
			to   *[]netip.Prefix
		}{{"add", &c.Add}, {"remove", &c.Remove}, {"clear", &c.Clear}} {
			for text := range strings.SplitSeq(a[p.word], ",") {
				if n, err := netip.ParsePrefix(text); err == nil {
					*p.to = append(*p.to, n)
				}
			}
		}
		c.ClearAll = a["clear"] == "all"
		return s.apply(c)
	case "node": // node name=lb2 cert=c2 role=witness replaces=c1
		return s.apply(PutNode{Node: a.node(), Replaces: a["replaces"], Level: int(a.num("level"))})
	case "remove":
		return s.apply(RemoveNode{Name: a["name"], Gossip: a.key("gossip", 32), Heartbeat: a.key("heartbeat", 32)})
	case "token": // token id=t1 secret=s role=balancer ttl=1h uses=1
		ttl, _ := time.ParseDuration(a["ttl"])
		return s.apply(PutToken{ID: a["id"], SecretHash: []byte(a["secret"]), Role: Role(a["role"]), TTL: ttl,
			Uses: int(a.num("uses"))})
	case "join": // join id=t1 secret=s role=balancer by=k1
		return s.apply(UseToken{ID: a["id"], SecretHash: []byte(a["secret"]), Role: Role(a["role"]), By: a["by"]})
	case "rotate": // rotate gossip=x heartbeat=x keep=2
		return s.apply(RotateKeys{Gossip: a.key("gossip", 32), Heartbeat: a.key("heartbeat", 32), Keep: int(a.num("keep"))})
	case "cert": // cert name=shop ecdsa=A rsa=B by=ann: chains and sealed keys
		c := PutCertificate{Name: a["name"], By: a["by"], At: at}
		for _, alg := range []string{"rsa", "ecdsa"} {
			if a[alg] != "" {
				c.Pairs = append(c.Pairs, CertificatePair{alg, []byte("chain " + a[alg]), []byte("key " + a[alg])})
			}
		}
		return s.apply(c)
	case "uncert": // uncert name=shop algorithm=rsa
		return s.apply(RemoveCertificate{Name: a["name"], Algorithm: a["algorithm"]})
	case "ticket": // ticket key=A expect=12 keep=3
		return s.apply(PutTicketKey{Key: []byte(a["key"]), Expect: a.num("expect"), Keep: int(a.num("keep"))})
	case "json": // what a View shows of its secrets
		b, _ := s.m.Views().Get().MarshalJSON()
		return fmt.Sprintf("%d sealed keys\n", bytes.Count(b, []byte(`"Key":`)))
	case "tick":
		return s.apply(Tick{ElapsedMs: a.num("ms")})
	case "recover": // recover keep=lb1,lb2 above=7 gossip=x heartbeat=x
		var keep []string
		if a["keep"] != "" {
			keep = strings.Split(a["keep"], ",")
		}
		return s.apply(Recover{Keep: keep, Above: a.num("above"), Gossip: a.key("gossip", 32), Heartbeat: a.key("heartbeat", 32)})
	case "raw": // raw 99 7b7d: the bytes of a command, in hex
		var b []byte
		_, _ = fmt.Sscanf(strings.Join(bare, ""), "%x", &b)
		return s.result(b)
	case "decide": // decide self=lb2 lb1=dead lb2=fit,5m,short:a lb3=unfit,flapping; with "do", what is decided is applied
		self := a["self"]
		delete(a, "self")
		health, err := a.health()
		if err != nil {
			return err.Error() + "\n"
		}
		ds, returns := Placements(s.m.Views().Get(), health, self)
		text := decisions(ds, func(c Command) string {
			if slices.Contains(bare, "do") {
				return s.apply(c)
			}
			return ""
		})
		for _, r := range returns {
			text += fmt.Sprintf("%s goes back to %s in %v\n", r.VIP, r.Node, r.In)
		}
		return text
	case "restart": // through a snapshot, into a new machine
		var b bytes.Buffer
		snap, _ := s.m.Snapshot()
		if err := snap.Persist(&b); err != nil {
			return err.Error() + "\n"
		}
		snap.Release()
		s.m = New()
		if err := s.m.Restore(&b); err != nil {
			return err.Error() + "\n"
		}
		return ""
	case "show":
		return show(s.m.Views().Get())
	}
	return "unknown verb\n"
}

// health reads what is known of nodes.
func (a arguments) health() (map[string]NodeHealth, error) {
	health := map[string]NodeHealth{}
	for name, said := range a {
		words := strings.Split(said, ",")
		h := NodeHealth{Alive: words[0] != "dead", Fit: words[0] == "fit"}
		for _, w := range words[1:] {
			if vip, ok := strings.CutPrefix(w, "short:"); ok {
				h.Short = append(h.Short, vip)
			} else if vip, ok := strings.CutPrefix(w, "unable:"); ok {
				h.Unable = append(h.Unable, vip)
			} else if n, ok := strings.CutPrefix(w, "runs:"); ok {
				h.Runs, _ = strconv.ParseUint(n, 10, 64)
			} else if n, ok := strings.CutPrefix(w, "failed:"); ok {
				h.Failed, _ = strconv.ParseUint(n, 10, 64)
			} else if w == "stopping" {
				h.Stopping = true
			} else if w == "flapping" {
				h.Flapping = true
			} else if d, err := time.ParseDuration(w); err == nil {
				h.Well = d
			} else {
				return nil, err
			}
		}
		health[name] = h
	}
	return health, nil
}

// decisions draws decisions, each followed by what do says of its command.
func decisions(ds []Decision, do func(Command) string) string {
	var b strings.Builder
	for _, d := range ds {
		fmt.Fprintf(&b, "%s -> %s expect=%v", d.VIP, d.Node, d.Expect)
		if d.Drain > 0 {
			fmt.Fprintf(&b, " drain=%v", d.Drain)
		}
		fmt.Fprintf(&b, ": %s\n%s", d.Why, do(d.Command()))
	}
	return b.String()
}

func (s *script) apply(c Command) string { return s.result(Encode(c)) }

func (s *script) result(cmd []byte) string {
	s.index++
	before := s.m.Views().Get()
	said := s.m.Apply(s.index, cmd)
	if err, ok := said.(error); ok {
		return "stopped: " + err.Error() + "\n"
	}
	r, err := DecodeResult(said.([]byte))
	if err != nil {
		return err.Error() + "\n"
	}
	if r.Index != s.index {
		s.t.Errorf("a result with index %d for the command %d", r.Index, s.index)
	}
	var b strings.Builder
	if err := r.Err(); err != nil {
		fmt.Fprintf(&b, "refused: %v: %v", err.(*Refusal).Unwrap(), err)
		if s.m.Views().Get() != before {
			b.WriteString(" (and yet it published)")
		}
	} else {
		fmt.Fprintf(&b, "%d: ok", r.Index)
		if r.Message != "" {
			b.WriteString(": " + r.Message)
		}
	}
	if r.Epoch != (Epoch{}) {
		fmt.Fprintf(&b, " epoch=%v", r.Epoch)
	}
	return b.String() + "\n"
}

func (s *script) upgrade(level int) string {
	from, to := &log{t: s.t, Machine: s.m}, NewAt(level)
	if err := to.Restore(bytes.NewReader(from.snapshot())); err != nil {
		return "stopped: " + err.Error() + "\n"
	}
	s.m = to
	return "ok\n"
}

func show(v *View) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("index %d, cluster %q generation %d, log time %d", v.Index, v.Cluster.ID, v.Cluster.Generation, v.LogTime)
	p("revision %d by %q: %q, made at index %d, %d bytes", v.Revision.Number, v.Revision.Author, v.Revision.Message, v.Revision.Index,
		len(v.Revision.Text))
	p("vips %v servers %v tables %v", v.Scope.VIPs, v.Scope.Servers, len(v.Scope.Tables))
	for _, n := range v.Nodes {
		p("node %s %s %v cert %s former %v joined %d", n.Name, n.Role, n.Advertise, n.Fingerprint, n.Former, n.JoinedIndex)
	}
	for _, f := range slices.Sorted(maps.Keys(v.Removed)) {
		p("refused %s, of %s", f, v.Removed[f])
	}
	for _, f := range v.Former {
		p("former %s %v keys %d", f.Name, f.Advertise, len(f.Keys))
	}
	for _, pl := range v.SortedPlacements() {
		line := fmt.Sprintf("vip %s on %s at %v", pl.VIP, pl.Node, pl.Epoch)
		if len(pl.Ring) > 1 {
			line += fmt.Sprintf(", ring %v", pl.Ring)
		}
		if pl.Drain > 0 {
			line += fmt.Sprintf(", drains for %v", pl.Drain)
		}
		if pl.Asked {
			line += ", asked for"
		}
		p("%s", line)
	}
	for _, k := range slices.SortedFunc(maps.Keys(v.Servers), ServerKey.Compare) {
		p("server %v %s weight %d by %q", k, v.Servers[k].State, v.Servers[k].Weight, v.Servers[k].By)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Drained)) {
		p("drained %s for %v by %q", name, v.Drained[name].Drain, v.Drained[name].By)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Lists)) {
		for _, e := range v.Lists[name] {
			p("list %s %v in=%v by %q", name, e.Prefix, e.In, e.By)
		}
	}
	first := func(keys [][]byte) (s string) {
		for _, k := range keys {
			s += string(k[:1])
		}
		return s
	}
	p("keys gossip %s heartbeat %s", first(v.Keys.Gossip), first(v.Keys.Heartbeat))
	for _, c := range v.Certificates {
		var pairs []string
		for _, pair := range c.Pairs {
			pairs = append(pairs, fmt.Sprintf("%s (%s, %s)", pair.Algorithm, pair.Chain, pair.Key))
		}
		p("certificate %s: %s, by %q at index %d", c.Name, strings.Join(pairs, " "), c.By, c.Index)
	}
	for _, k := range v.Tickets {
		p("ticket key %d: %s, made at %d", k.Number, k.Key, k.Made)
	}
	for _, t := range v.Tokens {
		p("token %s for a %s until %d, %d left, used by %v", t.ID, t.Role, t.Expires, t.Left(), t.UsedBy)
	}
	return b.String()
}
