package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinlb/skein/api"
)

func (c *cli) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "The whole cluster on one page",
		GroupID: groupDaily,
		Long: `The whole cluster on one page: is it well, and if not, why and what to do. It works on any node and without
a quorum; "as of" says how old the answer is then.

The exit code is 0 when all is well and 2 when something is degraded or down.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return c.watch(cmd.Context(), c.statusView)
			}
			ctx, cancel := bounded(cmd)
			defer cancel()
			s, err := c.node().Status(ctx)
			if err != nil {
				return err
			}
			if err := c.show(c.statusView(s)); err != nil {
				return err
			}
			if s.Verdict != api.OK {
				return silent(exitDifference)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "draw it anew every second until interrupted")
	return cmd
}

func (c *cli) statusView(s *api.Status) view {
	return view{
		doc:   s,
		draw:  func(wide bool) { c.drawStatus(s, wide) },
		names: func() []string { return []string{string(s.Verdict)} },
	}
}

// drawStatus is the page. It is read at three in the morning: what is wrong comes first, and every table below says who and why.
func (c *cli) drawStatus(s *api.Status, wide bool) {
	p := painter(c.color(c.outTTY))
	c.drawVerdict(s, p)
	fmt.Fprintln(c.out)
	c.drawFacts(s, p)
	for _, section := range []*table{c.nodeTable(s.Nodes, wide), c.vipTable(s.VIPs, wide), c.backendTable(s.Backends, wide), c.certificateTable(s.Certificates, wide)} {
		if len(section.rows) > 0 {
			fmt.Fprintln(c.out)
			c.drawTable(section)
		}
	}
	if len(s.Alarms) > 0 {
		fmt.Fprintln(c.out)
		c.drawTable(alarmTable(s.Alarms))
	}
}

// drawVerdict writes the verdict in words, and the reasons below one another.
func (c *cli) drawVerdict(s *api.Status, p painter) {
	word, t := "OK", good
	switch s.Verdict {
	case api.Degraded:
		word, t = "DEGRADED", warn
	case api.Down:
		word, t = "DOWN", bad
	}
	reasons := s.Reasons
	if len(reasons) == 0 {
		reasons = []string{"everything runs as configured"}
	}
	room := 0
	if w := c.outWidth(); w > 0 {
		room = max(w-len(word)-2, 20)
	}
	lead := p.paint(t, word+":")
	for _, r := range reasons {
		for _, line := range wrap(clean(r), room) {
			fmt.Fprintf(c.out, "%s %s\n", lead, line)
			lead = strings.Repeat(" ", len(word)+1)
		}
	}
}

// drawFacts writes what concerns the cluster as a whole, one fact a line.
func (c *cli) drawFacts(s *api.Status, p painter) {
	fact := func(name, format string, args ...any) {
		fmt.Fprintf(c.out, "%s %s\n", p.paint(dim, fmt.Sprintf("%-8s", name)), fmt.Sprintf(format, args...))
	}
	leader := "leader " + s.AsOf.Leader
	if s.AsOf.Leader == "" {
		leader = "no leader"
	}
	quorum := "quorum"
	if !s.AsOf.Quorum {
		quorum = p.paint(bad, "no quorum")
	}
	voters := fmt.Sprintf(": %d of %s alive, %d needed", s.Cluster.Alive, count(s.Cluster.Voters, "voter"), s.Cluster.Needed)
	if s.Cluster.Voters == 0 {
		voters = "" // the node has just started
	}
	fact("cluster", "%s%s; %s", quorum, voters, leader)
	if pair := s.Cluster.Pair; pair != nil {
		fact("pair", "%s", pairWords(pair))
	}
	fact("config", "%s", c.revisionWords(s.Revision))
	fact("as of", "%s, index %d, asked %s", s.AsOf.At.Format("2006-01-02 15:04:05"), s.AsOf.Index, s.AsOf.Node)
}

// pairWords says what two nodes do without each other.
func pairWords(p *api.PairStatus) string {
	words := p.Mode + ": without the other one a node holds addresses while it reaches the tie-break"
	if p.Mode == "available" {
		words = p.Mode + ": nodes that do not see each other may both hold an address"
	}
	if p.ReadOnly {
		words += "; the configuration is read-only"
	}
	return words
}

// revisionWords is `revision 12 by root@lb1, 2h ago: "add s3"`.
func (c *cli) revisionWords(r api.Revision) string {
	if r.Number == 0 {
		return "none yet"
	}
	s := fmt.Sprintf("revision %d", r.Number)
	if r.Author != "" {
		s += " by " + clean(r.Author)
	}
	if !r.At.IsZero() {
		s += ", " + since(c.ago(r.At))
	}
	if r.Message != "" {
		s += fmt.Sprintf(": %q", r.Message)
	}
	return s
}

// since turns a span into words: "2h ago", "just now".
func since(span string) string {
	if span == "0s" {
		return "just now"
	}
	return span + " ago"
}

func alarmTable(alarms []api.Alarm) *table {
	t := newTable("ALARM", "WHAT")
	for _, a := range alarms {
		tn := warn
		if a.Severity == api.Critical {
			tn = bad
		}
		what := a.What
		if a.Node != "" && !strings.Contains(what, a.Node) {
			what = a.Node + ": " + what
		}
		t.row(toned(tn, string(a.Severity)), clean(what))
		if a.Hint != "" {
			t.note(plain, "-> "+clean(a.Hint))
		}
	}
	return t
}

// nodeTable draws members. A node's trouble stands below it.
func (c *cli) nodeTable(nodes []api.NodeStatus, wide bool) *table {
	head := []string{"NODE", "STATE", "ROLE", "RAFT", "CONFIG", "UP", "HOLDS"}
	mixed := mixedVersions(nodes)
	switch {
	case wide:
		head = []string{"NODE", "STATE", "ROLE", "RAFT", "CONFIG", "UP", "ADDRESS", "VERSION", "LEVEL", "HEARTBEAT", "GATE", "APPLIED", "FSYNC", "HOLDS"}
	case mixed:
		head = []string{"NODE", "STATE", "ROLE", "RAFT", "CONFIG", "UP", "VERSION", "LEVEL", "HOLDS"}
	}
	t := newTable(head...)
	for _, n := range nodes {
		state, tn := nodeState(&n)
		cells := []any{n.Name, toned(tn, state), n.Role, raftWord(&n)}
		r := n.Report
		if r == nil {
			r = &api.NodeReport{}
		}
		rev, up := "", ""
		if n.Report != nil {
			rev, up = fmt.Sprint(r.Revision.Running), c.ago(r.StartedAt)
		}
		cells = append(cells, rev, up)
		level := ""
		if n.Report != nil {
			level = fmt.Sprint(max(1, r.Level))
		}
		if mixed && !wide {
			cells = append(cells, r.Version, level)
		}
		if wide {
			hb, _, _ := strings.Cut(r.Guard.Profile, ",")
			if r.Guard.RealTime {
				hb += " rt"
			}
			applied, fsync := "", ""
			if n.Report != nil {
				applied, fsync = fmt.Sprint(r.Raft.AppliedIndex), fmt.Sprintf("%.1fms", r.Disk.FsyncMs)
			}
			// Both may go on to say more, for which -o json has the room.
			gate, _, _ := strings.Cut(r.Guard.Gate, ":")
			cells = append(cells, n.Address, r.Version, level, hb, gate, applied, fsync)
		}
		t.row(append(cells, strings.Join(n.Holds, ", "))...)
		if n.Summary != "" {
			t.note(tn, clean(n.Summary))
		}
	}
	return t
}

// mixedVersions reports whether the nodes run more than one version: then which one does belongs into every table.
func mixedVersions(nodes []api.NodeStatus) bool {
	first := ""
	for _, n := range nodes {
		if n.Report == nil {
			continue
		}
		if first != "" && n.Report.Version != first {
			return true
		}
		first = n.Report.Version
	}
	return false
}

func nodeState(n *api.NodeStatus) (string, tone) {
	switch {
	case !n.Alive:
		return "dead", bad
	case !n.Reachable:
		return "unreachable", bad
	case n.Drained != nil:
		return "drained", warn
	case n.Summary != "":
		return "degraded", warn
	}
	return "ok", good
}

func raftWord(n *api.NodeStatus) string {
	switch {
	case n.Leader:
		return "leader"
	case n.Voter:
		return "voter"
	}
	return "non-voter"
}

// vipTable draws virtual addresses.
func (c *cli) vipTable(vips []api.VIPStatus, wide bool) *table {
	head := []string{"VIP", "HOLDER", "SINCE", "ADDRESS", "FRONTENDS"}
	if wide {
		head = []string{"VIP", "HOLDER", "SINCE", "ADDRESS", "PLACED", "EPOCH", "INTERFACE", "PREFER", "FRONTENDS"}
	}
	t := newTable(head...)
	for _, v := range vips {
		holder := cell{text: v.Holder, tone: good}
		switch {
		case v.Holder == "":
			holder = toned(bad, "nobody")
		case v.VRRP.Standby():
			holder.tone = warn
		}
		cells := []any{v.Name, holder, c.ago(v.Since), strings.Join(v.Addresses, ", ")}
		if wide {
			cells = append(cells, v.Placed, v.Epoch, v.Interface, strings.Join(v.Prefer, ", "))
		}
		t.row(append(cells, strings.Join(v.Frontends, ", "))...)
		if v.VRRP != nil {
			t.note(plain, clean("VRRP "+groupWords(&v)))
		}
		if v.Returns != nil {
			t.note(plain, clean("goes back to "+returnWords(v.Returns)))
		}
		for _, d := range v.Draining {
			t.note(plain, fmt.Sprintf("%s on %s, %v left at most", connections(d.Connections), d.Node, (time.Duration(d.LeftMs)*time.Millisecond).Round(time.Second)))
		}
	}
	return t
}

// returnWords is "lb1 in 42s".
func returnWords(r *api.Return) string {
	return fmt.Sprintf("%s in %s", r.Node, span(time.Duration(r.InMs)*time.Millisecond))
}

// backendTable draws backends. Servers that are not simply up stand below theirs, with who sees what and why.
func (c *cli) backendTable(backends []api.BackendStatus, wide bool) *table {
	t := newTable("BACKEND", "USABLE", "BALANCE", "STICKY", "CHECK", "USED BY")
	for _, b := range backends {
		t.row(b.Name, usableCell(&b), b.Balance, b.Sticky, cmp.Or(b.Check, "none"),
			strings.Join(b.UsedBy, ", "))
		if len(b.Panic) > 0 {
			t.note(bad, clean("panic: too few servers are well, their health is ignored on "+list(b.Panic)))
		}
		for _, s := range b.Servers {
			if wide || s.State != api.ServerUp && s.State != api.ServerUnchecked || s.WeightSet || c.trafficWords(&s) != "" {
				tn, words := c.serverWords(&s)
				t.note(tn, words)
			}
		}
	}
	return t
}

// usableCell is "2 of 3". Servers that only some nodes reach are counted apart.
func usableCell(b *api.BackendStatus) cell {
	partly := 0
	for _, s := range b.Servers {
		if s.State == api.ServerPartly {
			partly++
		}
	}
	text := fmt.Sprintf("%d of %d", b.Usable, len(b.Servers))
	if partly > 0 {
		text += fmt.Sprintf(", %d partly", partly)
	}
	switch {
	case b.Usable == len(b.Servers):
		return toned(good, text)
	case b.Usable+partly == 0:
		return toned(bad, text)
	}
	return toned(warn, text)
}

// serverWords is one server in a sentence: "s2 down for 3m: connection refused (seen by lb1 and lb2)".
func (c *cli) serverWords(s *api.ServerStatus) (tone, string) {
	head := s.Name + " " + string(s.State)
	tn := plain
	switch s.State {
	case api.ServerDrain, api.ServerDisabled:
		tn = warn
		head += adminWords(c, s)
	case api.ServerDown:
		tn = bad
		head += c.sinceSeen(s)
	case api.ServerPartly:
		tn = warn
		head = s.Name + " down for some nodes"
	case api.ServerUnknown:
		tn = warn
		head += ": no node has reported on it"
	}
	if s.WeightSet {
		head += fmt.Sprintf(", weight %d instead of the file's %d", s.Weight, s.FileWeight)
	}
	words := whyDown(s)
	if t := c.trafficWords(s); t != "" {
		if tn == plain {
			tn = warn
		}
		words += ": " + t
	}
	return tn, clean(head + words)
}

// trafficWords says where traffic found the server failing, and where it is only beginning to take its share.
func (c *cli) trafficWords(s *api.ServerStatus) string {
	var ejected, slow []string
	for _, seen := range s.Seen {
		switch {
		case !seen.EjectedUntil.IsZero():
			ejected = append(ejected, fmt.Sprintf("on %s for %s more", seen.Node, span(seen.EjectedUntil.Sub(c.now()))))
		case seen.RampPercent > 0:
			slow = append(slow, fmt.Sprintf("on %s at %d %%", seen.Node, seen.RampPercent))
		}
	}
	var parts []string
	if len(ejected) > 0 {
		parts = append(parts, "ejected by traffic "+list(ejected))
	}
	if len(slow) > 0 {
		parts = append(parts, "slow start "+list(slow))
	}
	return strings.Join(parts, "; ")
}

func adminWords(c *cli, s *api.ServerStatus) string {
	words := ""
	if s.AdminBy != "" {
		words = " by " + s.AdminBy
	}
	if !s.AdminAt.IsZero() {
		words += ", " + since(c.ago(s.AdminAt))
	}
	return words
}

// sinceSeen is how long a server has been down for the node that noticed last.
func (c *cli) sinceSeen(s *api.ServerStatus) string {
	var last time.Time
	for _, seen := range s.Seen {
		if !seen.Up && seen.Since.After(last) {
			last = seen.Since
		}
	}
	if last.IsZero() {
		return ""
	}
	return " for " + c.ago(last)
}

// whyDown groups the nodes that see a server down by what they say.
func whyDown(s *api.ServerStatus) string {
	var reasons []string
	nodes := map[string][]string{}
	for _, seen := range s.Seen {
		if seen.Up {
			continue
		}
		why := cmp.Or(seen.Why, "no reason given")
		if !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
		nodes[why] = append(nodes[why], seen.Node)
	}
	var parts []string
	for _, why := range reasons {
		parts = append(parts, fmt.Sprintf("%s (seen by %s)", why, list(nodes[why])))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, "; ")
}
