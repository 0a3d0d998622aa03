package plan

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/golden"
)

// Each file of testdata/roster is a backend's life: a command, a line of dashes, and who takes new clients then, with which part of
// them. Commands: down S, up S, drain S, disable S, enable S, weight S N, fail S N (requests in a row), advance D.
func TestRosterTranscripts(t *testing.T) {
	golden.Each(t, "testdata/roster/*.txt", 1, func(t *testing.T, src string) string {
		var out strings.Builder
		var life *rosterLife
		skipping := false
		for line := range strings.Lines(src) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case line == "----":
				skipping = true
				continue
			case line == "":
				skipping = false
			case skipping:
				continue
			}
			fmt.Fprintln(&out, line)
			if line == "" || line[0] == '#' {
				continue
			}
			if life == nil {
				life = newRosterLife(t, line)
			} else {
				life.do(t, line)
			}
			fmt.Fprintf(&out, "----\n%s", life)
		}
		return out.String()
	})
}

type rosterLife struct {
	b    *Backend
	now  int64
	next int64
}

// newRosterLife reads "backend NAME=WEIGHT... [WORD=VALUE...]"; a weight with a + is a backup's.
func newRosterLife(t *testing.T, line string) *rosterLife {
	t.Helper()
	var servers, more strings.Builder
	for _, word := range strings.Fields(line)[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch {
		case len(name) == 1:
			backup := strings.HasPrefix(value, "+")
			fmt.Fprintf(&servers, "server %q {\n address = \"198.18.0.%d:80\"\n weight = %s\n backup = %v\n}\n",
				name, name[0], strings.TrimPrefix(value, "+"), backup)
		case name == "outlier":
			fmt.Fprintf(&more, "outlier {\n%s\n}\n", strings.ReplaceAll(strings.ReplaceAll(value, ",", "\n"), ":", "="))
		default:
			fmt.Fprintf(&more, "%s = %s\n", name, value)
		}
	}
	p := compile(t, "frontend \"f\" {\n bind = [\"127.0.0.1\"]\n http = 80\n backend = \"b\"\n}\nbackend \"b\" {\n"+more.String()+servers.String()+"}\n", nil)
	l := &rosterLife{b: p.Backends[0], now: int64(time.Hour)}
	l.next = l.b.Refresh(l.now)
	return l
}

func (l *rosterLife) do(t *testing.T, line string) {
	t.Helper()
	f := strings.Fields(line)
	var s *Server
	if len(f) > 1 {
		s = l.b.Server(f[1])
	}
	number := func() int {
		n, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch f[0] {
	case "down", "up":
		s.Usable.Store(f[0] == "up")
	case "drain":
		s.Admin.Store(uint32(Drain))
	case "disable":
		s.Admin.Store(uint32(Disabled))
	case "enable":
		s.Admin.Store(uint32(Enabled))
	case "weight":
		s.WeightOverride.Store(int32(number()))
	case "fail":
		for range number() {
			if s.Failed(l.now) {
				l.b.Eject(s, l.now)
			}
		}
	case "succeed":
		s.Succeeded()
	case "advance":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		end := l.now + int64(d)
		for l.next != 0 && l.next <= end {
			l.now = l.next
			l.next = l.b.Refresh(l.now)
		}
		l.now = end
	default:
		t.Fatalf("unknown command %q", line)
	}
	l.next = l.b.Refresh(l.now)
}

func (l *rosterLife) String() string {
	var b strings.Builder
	r := l.b.roster.Load()
	for i, s := range l.b.Servers {
		switch n := s.EjectedUntil.Load(); {
		case r.shares[i] > 0:
			fmt.Fprintf(&b, "%s takes %d", s.Name, r.shares[i])
		default:
			fmt.Fprintf(&b, "%s takes nobody", s.Name)
			if n != 0 {
				fmt.Fprintf(&b, ", ejected for %v", time.Duration(n-l.now))
			}
		}
		if r.shares[i] == 0 && s.TakesStuck() {
			b.WriteString(", keeps its own")
		}
		b.WriteByte('\n')
	}
	if l.b.Room.Panic.Load() {
		b.WriteString("panic\n")
	}
	return b.String()
}

// A plan that nobody refreshes any more never gives a client to a server that is down by now.
func TestAnOldPlanDoesNotPickWhoIsDown(t *testing.T) {
	for balance := config.RoundRobin; balance <= config.Hash; balance++ {
		b := newBackend(t, balance, 1, 1, 1)
		b.Refresh(0)
		b.Server("a").Usable.Store(false)
		b.Server("c").Admin.Store(uint32(Drain))
		for i := range 20 {
			if s := b.Pick(Want{Hash: uint64(i), Hashed: true}); s == nil || s.Name != "b" {
				t.Fatalf("%v: picked %v", balance, s)
			}
		}
		b.Server("b").Usable.Store(false)
		if s := b.Pick(Want{Hash: 1, Hashed: true}); s != nil {
			t.Errorf("%v: picked %v of nobody", balance, s.Name)
		}
	}
}

func TestCheckingAPlanChangesNothing(t *testing.T) {
	p := compile(t, two, nil)
	b := p.Backend("b")
	b.Refresh(0)
	b.Server("s1").Usable.Store(false)
	b.Refresh(0)
	compile(t, strings.Replace(two, `backend "b" {`, "backend \"b\" {\n  minimum_healthy = 1\n  slow_start = \"1m\"", 1), p)
	if b.Room.Panic.Load() || b.Server("s1").TakesNew() || b.Server("s2").Ramp.Load() != 100 {
		t.Error("to compile a plan that is never in force has changed one that is")
	}
}

func TestATableIsMadeOnlyWhenSharesChange(t *testing.T) {
	text := strings.Replace(two, `backend "b" {`, "backend \"b\" {\n  balance = \"source_hash\"", 1)
	old := compile(t, text, nil)
	b := old.Backend("b")
	table := b.roster.Load().table
	b.Refresh(1)
	same := compile(t, strings.Replace(text, "8081", "8082", 1), old)
	if b.roster.Load().table != table || same.Backend("b").roster.Load().table != table {
		t.Error("a table was made anew for the same shares")
	}
	b.Server("s2").WeightOverride.Store(2)
	b.Refresh(2)
	if b.roster.Load().table == table {
		t.Error("the table did not follow the weight")
	}
}

func TestSlowStartOfAServerThatIsNew(t *testing.T) {
	text := strings.Replace(two, `backend "b" {`, "backend \"b\" {\n  slow_start = \"10s\"", 1)
	old := compile(t, text, nil)
	old.Backend("b").Refresh(1)
	p := compile(t, strings.Replace(text, `server "s1" { address = "198.18.1.1:80" }
  server "s2"`, `server "s1" { address = "198.18.1.1:80" }
  server "s4" { address = "198.18.1.4:80" }
  server "s2"`, 1), old)
	b := p.Backend("b")
	b.Refresh(1)
	if got := fmt.Sprint(b.roster.Load().shares); got != "[100 10 100 100]" {
		t.Errorf("shares with s4 new: %s", got)
	}
}

func TestALateRefreshOfTheFormerPlanChangesNothing(t *testing.T) {
	// The former plan ignores health when too few are well, the one in force does not. Somebody who has the former one in hand is late.
	const text = "backend \"b\" {\n%s\nserver \"s\" {\n address = \"192.0.2.1:80\"\n}\n}\n"
	former := compile(t, fmt.Sprintf(text, "minimum_healthy = 0.5"), nil)
	b, late := compile(t, fmt.Sprintf(text, ""), former).Backends[0], former.Backends[0]
	late.Refresh(1)
	b.Servers[0].Usable.Store(false)
	b.Refresh(2)
	late.Refresh(3)
	if b.Room.Panic.Load() || b.Servers[0].TakesNew() {
		t.Errorf("panic = %v, a server that is down takes clients = %v", b.Room.Panic.Load(), b.Servers[0].TakesNew())
	}
}
