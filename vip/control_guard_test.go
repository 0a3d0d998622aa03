package vip

import (
	"encoding/json"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A guest that is turned away is gone: its seat has no descriptor any more, and what the number of none, 0, stands for in this process
// is not the guest's to be read or closed. The guard would go on to lose a socket of its own.
func TestAGuestThatIsTurnedAwayTakesNothingWithIt(t *testing.T) {
	g := newGuard(GuardOptions{})
	g.log = slog.New(slog.DiscardHandler)
	g.ctl, g.m = &controlServer{listen: -1}, newMachine(0, 1, false)
	seat := func(i int) (theirs int) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		g.ctl.guests[i] = guest{fd: fds[0], pid: os.Getpid()}
		return fds[1]
	}
	defer unix.Close(seat(0))
	g.ctl.guests[0].attached = true
	defer unix.Close(g.ctl.guests[0].fd)
	stranger := seat(1)
	defer unix.Close(stranger)
	before, err := os.Stat("/proc/self/fd/0")
	if err != nil {
		t.Fatal(err)
	}

	if _, err := unix.Write(stranger, []byte(`{"hello":{"protocol":1}}`)); err != nil {
		t.Fatal(err)
	}
	g.hearGuest(&g.ctl.guests[1])
	var answer [4096]byte
	if n, _ := unix.Read(stranger, answer[:]); n <= 0 {
		t.Error("it was not told why")
	}
	if n, err := unix.Read(stranger, answer[:]); n != 0 {
		t.Errorf("it is still served: %d bytes, %v", n, err)
	}
	if after, err := os.Stat("/proc/self/fd/0"); err != nil || !os.SameFile(before, after) {
		t.Errorf("the guard's own descriptor 0 was closed: %v", err)
	}
}

// seated gives a guard a guest, and returns the guest's end.
func seated(t *testing.T, g *guard, i int) (theirs int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.ctl.guests[i] = guest{fd: fds[0], pid: os.Getpid()}
	t.Cleanup(func() { unix.Close(fds[1]) })
	return fds[1]
}

// greets says hello with a page, as an agent does, and returns the page and what the guard answers.
func greets(t *testing.T, g *guard, i, theirs int) (*page, toAgent) {
	t.Helper()
	p, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	if err := unix.Sendmsg(theirs, []byte(`{"hello":{"protocol":1}}`), unix.UnixRights(p.fd), nil, 0); err != nil {
		t.Fatal(err)
	}
	g.hearGuest(&g.ctl.guests[i])
	return p, heardOf(t, theirs)
}

func heardOf(t *testing.T, theirs int) (m toAgent) {
	t.Helper()
	buf := make([]byte, controlMax)
	n, err := unix.Read(theirs, buf)
	if err != nil || n == 0 {
		t.Errorf("no answer: %d bytes, %v", n, err)
		return m
	}
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		t.Error(err)
	}
	return m
}

// An agent that greets twice is the one that it was: its addresses stay, and it is told. Whether it would make room for a successor does
// not matter. It was dropped without a word to the machine, the log or the time that a guard without an agent lasts: one that ran for
// longer than that ended at once.
func TestAnAgentThatGreetsTwiceStays(t *testing.T) {
	for _, yields := range []int64{0, int64(1e9)} {
		g := newGuard(GuardOptions{})
		g.log = slog.New(slog.DiscardHandler)
		g.ctl, g.m = &controlServer{listen: -1}, newMachine(0, 1, false)
		t.Cleanup(g.close)
		theirs := seated(t, g, 0)
		p, m := greets(t, g, 0, theirs)
		if m.Welcome == nil {
			t.Fatalf("it is not welcome: %+v", m)
		}
		g.ctl.guests[0].yields = yields
		p.word(lineFit).Store(1)

		_, m = greets(t, g, 0, theirs)
		if m.Problem == "" {
			t.Errorf("yields %d: it is not told: %+v", yields, m)
		}
		if c := g.ctl.agent(); c == nil || c.pid != os.Getpid() || c.yields != yields {
			t.Errorf("yields %d: the agent is %+v now", yields, c)
		}
		if g.page.word(lineFit).Load() != 1 {
			t.Errorf("yields %d: the page is another", yields)
		}
	}
}

// A guard serves agents one after the other, and the next may have more loops or fewer: exactly its own are watched from then on. One that
// hung in the former agent says nothing of the next, and one beyond the former's number does.
func TestASuccessorMayHaveAnotherNumberOfLoops(t *testing.T) {
	for _, c := range []struct {
		former, next int
		hangs        int // of the next, the last but so many; -1: none
		want         verdict
	}{
		{3, 1, -1, agentFine}, {3, 1, 0, loopHangs}, {1, 3, -1, agentFine}, {1, 3, 0, loopHangs}, {2, MaxLoops, 0, loopHangs}, {MaxLoops, 2, -1, agentFine},
	} {
		g := newGuard(GuardOptions{})
		g.log = slog.New(slog.DiscardHandler)
		g.ctl, g.m = &controlServer{listen: -1}, newMachine(0, 1, false)
		t.Cleanup(g.close)
		first, _ := greets(t, g, 0, seated(t, g, 0))
		(&Agent{page: first}).Progress(c.former)
		for i := range c.former {
			first.word(lineFirst + i).Store(7) // and stands still
		}
		g.ctl.guests[0].yields = 1

		second, m := greets(t, g, 1, seated(t, g, 1))
		if m.Welcome == nil || g.ctl.agent() != &g.ctl.guests[1] {
			t.Fatalf("%d loops after %d: not welcome: %+v", c.next, c.former, m)
		}
		words := (&Agent{page: second}).Progress(c.next)
		begin := g.now()
		for now := begin; now < begin+800*ms; now += 20 * ms {
			second.word(lineAgent).Add(1)
			for i := range words {
				if i != len(words)-1-c.hangs || now == begin || c.hangs < 0 {
					words[i].Add(1)
				}
			}
			g.watch(now)
		}
		if g.dogSay != c.want {
			t.Errorf("%d loops after %d, number %d from the end hangs: %q, want %q", c.next, c.former, c.hangs, g.dogSay, c.want)
		}
	}
}
