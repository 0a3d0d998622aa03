package vip

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/golden"
)

// controlPackets are the packets of testdata/control, each with every field of today that can have a value.
func controlPackets() map[string]any {
	addr, also := netip.MustParseAddrPort("198.18.0.2:7941"), []netip.AddrPort{netip.MustParseAddrPort("198.18.1.2:7941")}
	vip := VIP{Name: "public", Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.10/24")}, Interface: "eth0", RouterID: 7}
	setup := Setup{
		Self: "n1", ClusterID: "c1", Keys: [][]byte{keyA}, Listen: addr, Also: also, SelfVoter: true, Witness: true, VotersIndex: 3,
		Peers: []Peer{{Name: "n2", Addr: addr, Also: also, Voter: true, Witness: true}}, VIPs: []VIP{vip},
		Placements: []Placement{{VIP: "public", Node: "n1", Epoch: Epoch{1, 2}, First: true, Drain: time.Second}},
		Applied:    9, Pair: &Pair{Available: true, Tiebreak: []netip.Addr{addr.Addr()}, File: "/f"}, Generation: 4,
		Former: []Former{{Name: "n3", Addr: addr, Also: also, Keys: [][]byte{keyB}}},
	}
	state := State{
		Fit: true, RealTime: true, Profile: "fast", VotersIndex: 3, Confirmed: 3, Gate: "nftables",
		Held:  map[string]Holding{"public": {Epoch: Epoch{1, 2}, LeaseLeft: time.Millisecond}},
		Peers: map[string]PeerState{"n2": {Voter: true, Alive: true, Fit: true, AgentAlive: true, Age: time.Millisecond, Profile: "fast"}},
	}
	return map[string]any{
		"agent_hello":   toGuard{Hello: &hello{Protocol: 1}},
		"agent_setup":   toGuard{Setup: &setup},
		"agent_fit":     toGuard{Fit: &fit{Fit: true, Reason: "why"}},
		"agent_yield":   toGuard{Yield: &yield{Grace: time.Second}},
		"agent_quit":    toGuard{Quit: true},
		"agent_drained": toGuard{Drained: map[string]Epoch{"public": {1, 2}}},
		"guard_welcome": toAgent{Welcome: &welcome{Protocol: 1, PID: 7}},
		"guard_refused": toAgent{Refused: &refused{Protocol: 1, Why: "why"}},
		"guard_problem": toAgent{Problem: "why"},
		"guard_taken":   toAgent{Taken: true},
		"guard_state":   toAgent{State: &wireStatus{State: state, Ages: map[string]time.Duration{"public": time.Second}}},
	}
}

// What an agent of today says is said to guards that were started long ago, and what a guard of today says is heard by agents to come: the
// packets are kept. -rewrite adds one, and changes none. A field that is added must not show unless it is used, which is what
// omitempty is for; a guard's report may say more.
func TestKeptControlPackets(t *testing.T) {
	for name, p := range controlPackets() {
		path := filepath.Join("testdata", "control", name+".json")
		kept, err := os.ReadFile(path)
		if os.IsNotExist(err) && golden.Rewriting() {
			b, _ := json.MarshalIndent(p, "", "  ")
			if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var unknown string
		var read any
		switch p.(type) {
		case toGuard:
			read, unknown, err = decodeControl[toGuard](kept)
		case toAgent:
			read, unknown, err = decodeControl[toAgent](kept)
		}
		if err != nil || unknown != "" {
			t.Errorf("%s: %v; %q is not known any more", name, err, unknown)
		}
		if !reflect.DeepEqual(p, read) {
			t.Errorf("%s is read differently now: %+v, want %+v", name, read, p)
		}
		if b, _ := json.MarshalIndent(p, "", "  "); name != "guard_state" && string(b)+"\n" != string(kept) {
			t.Errorf("%s is said differently now, which a guard that runs does not expect:\n%s", name, cmp.Diff(string(kept), string(b)+"\n"))
		}
	}
}

// A new field of a Setup that is not used is not said.
func TestAnEmptySetupSaysWhatItAlwaysDid(t *testing.T) {
	const always = "Self ClusterID Keys Listen Also Peers SelfVoter Witness VotersIndex VIPs Placements Applied"
	b, _ := json.Marshal(Setup{})
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for name := range got {
		if !strings.Contains(" "+always+" ", " "+name+" ") {
			t.Errorf("%s is said though it is not used: older guards would be complained of; give it omitempty", name)
		}
	}
}

func TestWhatIsNotKnownIsNamed(t *testing.T) {
	for _, c := range []struct{ said, unknown, err string }{
		{`{"fit":{"fit":true}}`, "", ""},
		{`{"pause":{"for":1}}`, "pause", ""},
		{`{"fit":{"fit":true,"mood":"good"}}`, "mood", ""},
		{`{"setup":{"Self":"n1","VIPs":[{"Name":"a","Colour":"red"}]}}`, "Colour", ""},
		{`{"fit":"well"}`, "", "cannot unmarshal"},
		{`{"fit":{"fit":true}}{}`, "", "invalid character"},
		{`{"fit":`, "", "unexpected end"},
		{``, "", "unexpected end"},
	} {
		m, unknown, err := decodeControl[toGuard]([]byte(c.said))
		if unknown != c.unknown || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: unknown %q, %v; want %q, %q", c.said, unknown, err, c.unknown, c.err)
		}
		if strings.Contains(c.said, `"fit":true`) && c.err == "" && (m.Fit == nil || !m.Fit.Fit) {
			t.Errorf("%s: what is known was lost: %+v", c.said, m)
		}
	}
}

// A newer agent says what this guard does not know, then something of another shape. The guard names both, holds on to its agent, and
// hears what comes next.
func TestAnOlderGuardAnswersANewerAgent(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	g := &guard{log: slog.New(slog.NewTextHandler(io.Discard, nil)), ctl: &controlServer{listen: -1}, m: newMachine(1, 1, true)}
	c := &g.ctl.guests[0]
	*c = guest{fd: fds[0], attached: true}
	defer g.ctl.drop(c)
	say := func(text string) toAgent {
		t.Helper()
		if err := unix.Send(fds[1], []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		g.hearGuest(c)
		if !c.attached {
			t.Fatalf("%s: the agent counts as dead", text)
		}
		buf := make([]byte, controlMax)
		n, err := unix.Read(fds[1], buf)
		if err != nil {
			return toAgent{}
		}
		var m toAgent
		if err := json.Unmarshal(buf[:n], &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		said string
		want toAgent
	}{
		{`{"pause":true}`, toAgent{Unknown: "pause"}},
		{`{"yield":{"grace":5,"why":"x"}}`, toAgent{Unknown: "why"}},
		{`{"setup":{"Self":"n1","Colour":"red"}}`, toAgent{Problem: "…", Unknown: "Colour"}},
		{`{"setup":{"Self":7}}`, toAgent{Problem: "…"}},
		{`{"yield":{"grace":6}}`, toAgent{}},
	} {
		got := say(c.said)
		if c.want.Problem != "" && got.Problem != "" {
			got.Problem = c.want.Problem
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.said, got, c.want)
		}
	}
	if c.yields != 6 {
		t.Errorf("what was understood was not done: %d", c.yields)
	}
}

// The agent publishes what its guard does not know until that knows all, and passes over what it does not know itself.
func TestAnAgentHearsAnotherVersionsGuard(t *testing.T) {
	a := &Agent{}
	for _, c := range []struct{ said, problem, unknown, err string }{
		{`{"taken":true,"unknown":"Colour"}`, "", "Colour", ""},
		{`{"state":{"Fit":true,"Mood":"good","Held":null}}`, "", "Colour", ""},
		{`{"news":"none"}`, "", "Colour", ""},
		{`{"problem":"no","unknown":"Colour"}`, "no", "Colour", ""},
		{`{"taken":true}`, "", "", ""},
		{`{"unknown":"pause"}`, "", "pause", ""},
		{`{"state":[]}`, "", "pause", "read from guard"},
	} {
		err := a.hear([]byte(c.said))
		if s := a.state.Get(); s.Problem != c.problem || s.Unknown != c.unknown || (err == nil) != (c.err == "") {
			t.Errorf("%s: %q, %q, %v; want %q, %q, %q", c.said, s.Problem, s.Unknown, err, c.problem, c.unknown, c.err)
		}
	}
	if s := a.state.Get(); !s.Connected || !s.Fit {
		t.Errorf("%+v", s)
	}
}
