package api

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/golden"
	"github.com/skeinlb/skein/state"
)

// shop is the configuration that every transcript starts with.
const shop = `
vip "public" { address = "192.0.2.10/24" }
frontend "shop" {
  vip     = "public"
  http    = 80
  backend = "shop"
}
backend "shop" {
  check "http" { path = "/healthz" }
  server "s1" { address = "198.51.100.21:8080" }
  server "s2" {
    address = "198.51.100.22:8080"
    weight  = 2
  }
}
`

// TestWhatTheFactsMean reads testdata/summarize/*.txt: facts, "----", what Summarize makes of them.
func TestWhatTheFactsMean(t *testing.T) {
	golden.Each(t, "testdata/summarize/*.txt", 10, func(t *testing.T, text string) string {
		in, _, ok := strings.Cut(text, "----\n")
		if !ok {
			t.Fatal("it has no ----")
		}
		return in + "----\n" + verdictText(Summarize(readFacts(t, in)))
	})
}

func verdictText(s Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", s.Verdict)
	for _, r := range s.Reasons {
		fmt.Fprintf(&b, "  %s\n", r)
	}
	fmt.Fprintf(&b, "voters %d of %d, %d needed\n", s.Cluster.Alive, s.Cluster.Voters, s.Cluster.Needed)
	for _, v := range s.VIPs {
		fmt.Fprintf(&b, "vip %s placed=%s holder=%s\n", v.Name, v.Placed, v.Holder)
	}
	for _, bs := range s.Backends {
		fmt.Fprintf(&b, "backend %s usable %d of %d:", bs.Name, bs.Usable, len(bs.Servers))
		for _, srv := range bs.Servers {
			fmt.Fprintf(&b, " %s=%s", srv.Name, srv.State)
		}
		b.WriteByte('\n')
	}
	for _, a := range s.Alarms {
		fmt.Fprintf(&b, "%s %s\n  -> %s\n", a.Severity, strings.TrimSpace(a.Node+" "+a.What), a.Hint)
	}
	return b.String()
}

// readFacts reads a transcript's input. Without other words a node is an alive voter that reports, runs the newest revision, is fit
// and sees every server up.
func readFacts(t *testing.T, in string) Facts {
	t.Helper()
	conf, ds := config.Parse("shop.hcl", []byte(shop))
	if conf == nil {
		t.Fatal(ds.Error())
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := Facts{At: now, Answers: map[string]Answer{}, View: &state.View{
		Index: 42, Config: conf, Cluster: state.Cluster{ID: "c1", Generation: 1},
		Revision:   state.ConfigRevision{Number: 3, Text: []byte(shop)},
		Placements: map[string]state.Placement{}, Servers: map[state.ServerKey]state.Admin{},
	}}
	for line := range strings.Lines(in) {
		w := strings.Fields(line)
		if len(w) == 0 || w[0] == "#" {
			continue
		}
		rest := func(from int) string { return strings.Join(w[from:], " ") }
		report := func() *NodeReport { return f.Answers[w[1]].Report }
		switch w[0] {
		case "node": // NAME [witness] [nonvoter]
			addNode(&f, w[1], strings.Contains(rest(2), "witness"), !strings.Contains(rest(2), "nonvoter"), now)
		case "asked":
			f.Self = w[1]
		case "leader": // NAME, as all who report see it
			for _, a := range f.Answers {
				a.Report.Raft.Leader, a.Report.Raft.Quorum = w[1], true
			}
		case "pair": // tiebreak|available
			conf, ds := config.Parse("shop.hcl", []byte("cluster {\n  pair = \""+w[1]+"\"\n}\n"+shop))
			if conf == nil {
				t.Fatal(ds.Error())
			}
			f.View.Config = conf
			for _, a := range f.Answers {
				a.Report.Guard.Pair = &PairReport{Reaches: true, Tiebreak: []TieReport{{Address: "192.0.2.1", Up: true}}}
			}
		case "astray": // NODE: it does not reach the tie-break
			report().Guard.Pair = &PairReport{Tiebreak: []TieReport{{Address: "192.0.2.1"}}}
		case "noquorum":
			for _, a := range f.Answers {
				a.Report.Raft.Leader, a.Report.Raft.Quorum = "", false
			}
		case "dead", "silent": // not heard at all; heard, but its API does not answer
			f.Answers[w[1]] = Answer{Error: "no answer within 500ms"}
			for i := range f.Members {
				if f.Members[i].Name == w[1] {
					f.Members[i].Alive = w[0] == "silent"
				}
			}
		case "place": // VIP NODE
			f.View.Placements[w[1]] = state.Placement{VIP: w[1], Node: w[2], Epoch: state.Epoch{Generation: 1, Index: 40}}
		case "holds": // NODE VIP [EPOCH], by default the placement's
			h := HeldVIP{Name: w[2], Since: now, Epoch: "1.40"}
			if len(w) > 3 {
				h.Epoch = w[3]
			}
			report().VIPs = append(report().VIPs, h)
		case "sees": // NODE SERVER up|down WHY
			for i := range report().Servers {
				if s := &report().Servers[i]; s.Server == w[2] {
					s.Up, s.Why = w[3] == "up", rest(4)
				}
			}
		case "ejects": // NODE SERVER
			for i := range report().Servers {
				if s := &report().Servers[i]; s.Server == w[2] {
					s.EjectedUntil = now.Add(10 * time.Second)
				}
			}
		case "panics": // NODE
			report().Backends = append(report().Backends, BackendReport{Backend: "shop", Panic: true})
		case "unchecked": // SERVER
			for _, a := range f.Answers {
				for i := range a.Report.Servers {
					if s := &a.Report.Servers[i]; s.Server == w[1] {
						s.Checked = false
					}
				}
			}
		case "admin": // BACKEND SERVER STATE
			f.View.Servers[state.ServerKey{Backend: w[1], Server: w[2]}] = state.Admin{State: state.AdminState(w[3]), Weight: -1, By: "root@lb1"}
		case "runs": // NODE REVISION [ERROR]
			report().Revision.Running, _ = strconv.ParseUint(w[2], 10, 64)
			report().Revision.Error = rest(3)
		case "copy": // NODE FROM TO SUM
			st := &StateReport{}
			if _, err := fmt.Sscanf(rest(2), "%d %d %x", &st.From, &st.To, &st.Sum); err != nil {
				t.Fatal(err)
			}
			report().State = st
		case "disk":
			report().Disk = DiskReport{Error: rest(2)}
		case "unfit":
			report().Guard.Fit, report().Guard.FitReason = false, rest(2)
		case "noguard":
			report().Guard = GuardReport{}
		case "alarm": // NODE SEVERITY WHAT
			report().Alarms = append(report().Alarms, Alarm{Severity: Severity(w[2]), What: rest(3), Hint: "look at it"})
		case "noconfig":
			f.View.Config, f.View.Revision = nil, state.ConfigRevision{}
			for _, a := range f.Answers {
				a.Report.Revision, a.Report.Servers = RevisionReport{}, nil
				a.Report.Guard.Fit, a.Report.Guard.FitReason = false, "no configuration runs yet"
			}
		default:
			t.Fatalf("unknown word %q", w[0])
		}
	}
	if f.Self == "" {
		f.Self = f.View.Nodes[0].Name
	}
	return f
}

func addNode(f *Facts, name string, witness, voter bool, now time.Time) {
	role := state.Balancer
	r := &NodeReport{
		Name: name, Version: "v1.0.0", At: now, StartedAt: now.Add(-time.Hour),
		Revision: RevisionReport{Committed: 3, Running: 3},
		Raft:     RaftReport{State: "follower", Voter: voter, AppliedIndex: 42},
		Disk:     DiskReport{OK: true}, Guard: GuardReport{Running: true, Fit: true},
	}
	if witness {
		role = state.Witness
	} else {
		for _, s := range []string{"s1", "s2"} {
			r.Servers = append(r.Servers, ServerReport{Backend: "shop", Server: s, Checked: true, Up: true, Since: now})
		}
	}
	r.Role = string(role)
	f.View.Nodes = append(f.View.Nodes, state.Node{Name: name, Role: role, Advertise: netip.MustParseAddrPort("198.51.100.1:7940")})
	f.Members = append(f.Members, Member{Name: name, Voter: voter, Alive: true})
	f.Answers[name] = Answer{Report: r}
}
