package node

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
)

// A node is lost three times within ten minutes. From then on it is flapping, however well it is, until the first of these losses is
// ten minutes old; the time it has been well counts from its last return.
func TestANodeThatIsLostAgainAndAgainIsFlappingUntilItHasBeenCalm(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := standings{}
	for _, step := range []struct {
		at       string
		fit      bool
		well     string
		flapping bool
		again    string // when to look again; "": no need
	}{
		{"0s", true, "0s", false, ""},
		{"1m", true, "1m", false, ""},
		{"2m", false, "0s", false, ""},
		{"2m1s", false, "0s", false, ""}, // lost once, however often it is looked at
		{"3m", true, "0s", false, ""},
		{"4m", false, "0s", false, ""},
		{"5m", true, "0s", false, ""},
		{"6m", false, "0s", true, "12m"},
		{"7m", true, "0s", true, "12m"},
		{"11m59s", true, "4m59s", true, "12m"},
		{"12m", true, "5m", false, ""},
		{"13m", false, "0s", true, "14m"}, // lost at 4m, 6m and 13m
		{"14m", true, "0s", false, ""},
	} {
		now := start.Add(parse(t, step.at))
		health := map[string]state.NodeHealth{"lb1": {Alive: true, Fit: step.fit}}
		again := s.note(now, health, nil)
		var want time.Time
		if step.again != "" {
			want = start.Add(parse(t, step.again))
		}
		if h := health["lb1"]; h.Well != parse(t, step.well) || h.Flapping != step.flapping || !again.Equal(want) {
			t.Errorf("at %s: well for %v, flapping %v, again at %v; want %s, %v, %v", step.at, h.Well, h.Flapping, again, step.well, step.flapping, want)
		}
		if _, flapping := s.flapping(now)["lb1"]; flapping != step.flapping {
			t.Errorf("at %s: reported as flapping: %v", step.at, flapping)
		}
	}
}

// An interface of a node loses its carrier now and then, or its servers are too few at times. It is alive and fit all the while, and is well only since
// the last such change: an address with failback must not come back with the carrier. What stays as it is, say an interface that is not there, does
// not count: other addresses go back.
func TestTroubleWithAnAddressBreaksTheTimeThatANodeHasBeenWell(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := standings{}
	for _, step := range []struct {
		at            string
		unable, short []string
		failed        uint64
		well          string
	}{
		{"0s", nil, nil, 0, "0s"},
		{"1h", nil, nil, 0, "1h"},
		{"1h1s", []string{"a"}, nil, 0, "0s"},
		{"1h2s", nil, nil, 0, "0s"}, // its carrier is back
		{"1h5m2s", nil, nil, 0, "5m"},
		{"1h6m", []string{"b"}, nil, 0, "0s"},
		{"2h6m", []string{"b"}, nil, 0, "1h"}, // an interface that stays away is no reason to keep "a" from where it belongs
		{"2h7m", []string{"b"}, []string{"a"}, 0, "0s"},
		{"2h8m", []string{"b"}, nil, 0, "0s"},
		{"2h9m", []string{"b"}, nil, 7, "0s"}, // a configuration that it could not put in force
		{"2h10m", []string{"b"}, nil, 0, "0s"},
		{"2h11m", []string{"b"}, nil, 0, "1m"},
	} {
		health := map[string]state.NodeHealth{"lb1": {Alive: true, Fit: true, Unable: step.unable, Short: step.short, Failed: step.failed}}
		s.note(start.Add(parse(t, step.at)), health, nil)
		if h := health["lb1"]; h.Well != parse(t, step.well) || h.Flapping {
			t.Errorf("at %s: well for %v, flapping %v; want %s and no flapping", step.at, h.Well, h.Flapping, step.well)
		}
	}
}

// Who is drained, or says that it stops, is not lost, be that heard before or after it is gone. A crash between two restarts counts as
// ever, and so does one of a node that is drained afterwards.
func TestAPlannedStopIsNoLoss(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := standings{}
	for _, step := range []struct {
		at       string
		fit      bool
		why      purpose
		losses   int
		flapping bool
	}{
		{"0s", true, unplanned, 0, false},
		{"10s", false, stopping, 0, false}, // a restart
		{"20s", true, unplanned, 0, false},
		{"30s", false, unplanned, 1, false}, // another one; its heartbeats are faster than its gossip
		{"31s", false, stopping, 0, false},
		{"32s", false, stopping, 0, false},
		{"33s", false, unplanned, 0, false}, // nothing is heard of it by now
		{"40s", true, unplanned, 0, false},
		{"50s", false, unplanned, 1, false}, // a crash
		{"51s", false, drained, 1, false},   // which an operator looks into
		{"60s", true, drained, 1, false},
		{"61s", false, drained, 1, false},
		{"70s", true, unplanned, 1, false},
		{"80s", false, unplanned, 2, false},
		{"90s", true, unplanned, 2, false},
		{"100s", false, unplanned, 3, true},
		{"110s", true, unplanned, 3, true},
		{"120s", true, stopping, 3, true},
		{"121s", false, stopping, 3, true}, // the three stand
		{"130s", true, unplanned, 3, true},
		{"140s", false, unplanned, 4, true},
		{"141s", false, stopping, 3, true}, // taken back, and the one before them is known again
		{"650s", true, unplanned, 3, false},
	} {
		now := start.Add(parse(t, step.at))
		health := map[string]state.NodeHealth{"lb1": {Alive: true, Fit: step.fit}}
		s.note(now, health, map[string]purpose{"lb1": step.why})
		losses := 0
		for _, at := range s["lb1"].losses {
			if !at.IsZero() {
				losses++
			}
		}
		if losses != step.losses || health["lb1"].Flapping != step.flapping {
			t.Errorf("at %s: %d losses, flapping %v; want %d, %v", step.at, losses, health["lb1"].Flapping, step.losses, step.flapping)
		}
	}
}

// A node says in its gossip that it stops; that another one is drained stands in the log.
func TestWhoStopsOnPurposeSaysSo(t *testing.T) {
	stops := summarize(summary{Stopping: true}, nil, api.Running{}, nil)
	runs := summarize(summary{}, nil, api.Running{}, nil)
	got := purposes(&state.View{Drained: map[string]state.Drained{"lb3": {}, "lb4": {}}}, []cluster.Member{
		{Name: "lb1", Meta: runs}, {Name: "lb2", Meta: stops}, {Name: "lb3"}, {Name: "lb4", Meta: stops}, {Name: "lb5", Meta: []byte("?")},
	})
	if want := (map[string]purpose{"lb2": stopping, "lb3": drained, "lb4": stopping}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func parse(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What a node says of itself in its gossip: the VIPs behind which it sees too few servers in any backend, be it a route's.
func TestANodeSaysBehindWhichVIPsItSeesTooFewServers(t *testing.T) {
	c, diags := config.Parse("edge.hcl", []byte(`
vip "a" {
  address         = "198.18.1.10/24"
  minimum_servers = 2
}
vip "b" {
  address         = "198.18.1.11/24"
  minimum_servers = 1
}
vip "c" { address = "198.18.1.12/24" }
frontend "f" {
  vip     = ["a", "c"]
  http    = 80
  route "r" {
    path    = "/one"
    backend = "one"
  }
  backend = "two"
}
frontend "g" {
  vip     = "b"
  http    = 80
  backend = "two"
}
backend "one" {
  server "s1" { address = "198.18.2.1:80" }
}
backend "two" {
  server "s1" { address = "198.18.2.1:80" }
  server "s2" { address = "198.18.2.2:80" }
}
`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	one1 := healthcheck.Key{Backend: "one", Server: "s1"}
	two1, two2 := healthcheck.Key{Backend: "two", Server: "s1"}, healthcheck.Key{Backend: "two", Server: "s2"}
	for _, x := range []struct {
		down []healthcheck.Key
		want []string
	}{
		{nil, nil},
		{[]healthcheck.Key{one1}, []string{"a"}}, // two are asked for, the backend has one: all of them
		{[]healthcheck.Key{two1}, []string{"a"}},
		{[]healthcheck.Key{two1, two2}, []string{"a", "b"}},
	} {
		verdicts := map[healthcheck.Key]healthcheck.Verdict{}
		for _, k := range x.down {
			verdicts[k] = healthcheck.Verdict{}
		}
		if got := readSummary(summarize(summary{}, c, api.Running{}, verdicts)).Short; !slices.Equal(got, x.want) {
			t.Errorf("down %v: short of servers behind %v, want %v", x.down, got, x.want)
		}
	}
}
