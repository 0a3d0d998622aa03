package sim

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
)

// pairModes are the two ways of two hosts that do without a third.
var pairModes = []struct {
	name, head string
	taken      time.Duration
}{{"tiebreak", tiebreak, promiseTaken}, {"available", available, promiseAvailable}}

// serves waits until n alone answers for every address.
func serves(w *World, n *Node, limit time.Duration) time.Duration {
	w.tb.Helper()
	return w.Until(n.Name+" serves everything", limit, func() bool {
		for _, name := range vips {
			if h := w.holders(name); len(h) != 1 || h[0] != n {
				return false
			}
		}
		return true
	})
}

// Either host dies, of whatever. The other one answers for everything within what is promised, and what it had itself it never loses.
// When the dead one is back nothing moves, both agree, and what was acknowledged is there. The first death is that of the node which
// votes, the second that of the other.
func TestAPairSurvivesTheDeathOfEither(t *testing.T) {
	deaths := []struct {
		name      string
		die, live func(n *Node)
		bound     time.Duration // 0: that of the mode
	}{
		{"power", (*Node).powerOff, (*Node).revive, 0},
		{"both processes stopped", (*Node).pause, (*Node).revive, 0},
		{"agent killed", (*Node).killAgent, (*Node).revive, promiseLeft},
		{"agent hangs", func(n *Node) { n.hang(true) }, (*Node).revive, promiseLeft + 100*time.Millisecond},
		{"guard killed", (*Node).crashGuard, func(*Node) {}, promiseTaken + promiseLeft},
		{"agent told to stop", (*Node).stop, (*Node).revive, promiseLeft},
	}
	for _, mode := range pairModes {
		for i, d := range deaths {
			t.Run(mode.name+" "+d.name, func(t *testing.T) {
				inPair(t, uint64(400+i), mode.head, func(w *World, c *Clients) {
					bound := d.bound
					if bound == 0 {
						bound = mode.taken
					}
					for _, dead := range w.Nodes {
						if dead == w.Nodes[0] {
							c.Change(dead)
							c.Wait()
						}
						w.Run(3 * time.Second)
						left := w.other(dead)
						own := w.placed()
						maps.DeleteFunc(own, func(_ string, h *Node) bool { return h != left })
						ended := make(chan struct{})
						begin := time.Now()
						go func() {
							defer close(ended)
							d.die(dead)
						}()
						for len(w.holders("public")) != 1 || w.Holder("public") != left || w.Holder("inside") != left {
							w.Run(time.Millisecond)
							for name := range own {
								if w.Holder(name) != left {
									w.Fatalf("%s lost %s, which it held itself", left.Name, name)
								}
							}
							if time.Since(begin) > bound+5*time.Millisecond {
								w.Fatalf("%s does not serve everything %v after %s died", left.Name, bound, dead.Name)
							}
						}
						t.Logf("%s serves %v after the death of %s", left.Name, time.Since(begin), dead.Name)
						<-ended
						w.Run(2 * time.Second)
						d.live(dead)
						w.Settled(promisePeace)
						w.Run(3 * time.Second)
						for _, name := range vips {
							if w.Holder(name) != left {
								w.Fatalf("%s moved back from %s", name, left.Name)
							}
						}
						c.Check()
					}
					c.Reload(w.Nodes[0])
				})
			})
		}
	}
}

// The cable of either host is pulled. With a tie-break it lets go before the other one takes over; of an available pair both hold then,
// and as soon as they see each other again one does.
func TestAPairWithACablePulled(t *testing.T) {
	for _, mode := range pairModes {
		t.Run(mode.name, func(t *testing.T) {
			inPair(t, 420, mode.head, func(w *World, c *Clients) {
				for _, dead := range w.Nodes {
					w.Run(3 * time.Second)
					left := w.other(dead)
					w.pair.unplug(dead)
					took := w.Until(left.Name+" answers", mode.taken+10*time.Millisecond, func() bool { return left.answersFor("public") && left.answersFor("inside") })
					w.Run(5 * time.Second)
					if mode.head == tiebreak {
						serves(w, left, 0)
					}
					w.pair.heal()
					w.Run(promiseHeard)
					one := w.placed()
					w.Settled(promisePeace)
					w.Run(3 * time.Second)
					w.stays(one, "after the cable was back")
					c.Check()
					t.Logf("%s serves %v after the cable of %s was pulled", left.Name, took, dead.Name)
				}
			})
		})
	}
}

// What passes between the two is cut, heartbeats or streams or both, and they share the segment. Nothing moves: who holds answers for the
// address, and the other one asks first.
func TestAPairThatSharesTheSegmentMovesNothing(t *testing.T) {
	for _, mode := range pairModes {
		for _, what := range []cut{cutStreams, cutDatagrams, cutAll} {
			inPair(t, 430, mode.head, func(w *World, c *Clients) {
				w.Run(3 * time.Second)
				before := w.placed()
				w.Cut(w.Nodes[0], w.Nodes[1], what)
				w.Cut(w.Nodes[1], w.Nodes[0], what)
				for range 100 {
					w.Run(100 * time.Millisecond)
					w.stays(before, mode.name+", cut from each other, on one segment")
				}
				w.pair.heal()
				w.Settled(10 * time.Second)
				w.stays(before, mode.name+", healed")
				c.Reload(w.Nodes[1])
			})
		}
	}
}

// While the two hear each other the tie-break is not needed: it may be silent for one or both, and nothing moves. Both say so.
func TestASilentTieBreakMovesNothingWhileTheTwoHearEachOther(t *testing.T) {
	inPair(t, 431, tiebreak, func(w *World, c *Clients) {
		before := w.placed()
		for _, n := range w.Nodes {
			w.pair.mute(n)
			w.Run(10 * time.Second)
			w.stays(before, "the tie-break is silent")
			r := n.report()
			if p := r.Guard.Pair; p == nil || p.Reaches || len(p.Tiebreak) != 1 || p.Tiebreak[0].Up || p.Tiebreak[0].Address != "192.0.2.1" {
				w.Fatalf("%s reports %+v of a tie-break that is silent", n.Name, p)
			}
		}
		c.promises()
		w.pair.heal()
		w.Run(3 * time.Second)
		w.Settled(10 * time.Second)
		w.stays(before, "the tie-break is back")
		if p := w.Nodes[0].report().Guard.Pair; p == nil || !p.Reaches {
			w.Fatalf("lb1 reports %+v of a tie-break that is back", p)
		}
		c.Check()
	})
}

// The segment is split between the two. Who reaches the tie-break serves, alone; both, when both do, until they see each other again; nobody, when
// nobody does. Afterwards one does, and both agree.
func TestAPairThatIsSplitServesWhereTheTieBreakIs(t *testing.T) {
	for _, side := range []struct {
		name  string
		mute  []int
		serve []int
	}{
		{"behind the one that votes", []int{1}, []int{0}},
		{"behind the other one", []int{0}, []int{1}},
		{"on both sides", nil, []int{0, 1}},
		{"on neither", []int{0, 1}, nil},
	} {
		t.Run(side.name, func(t *testing.T) {
			inPair(t, 432, tiebreak, func(w *World, c *Clients) {
				w.Run(3 * time.Second)
				w.pair.split()
				for _, i := range side.mute {
					w.pair.mute(w.Nodes[i])
				}
				w.Run(promiseTaken + 200*time.Millisecond)
				for range 50 {
					for _, name := range vips {
						if h := w.holders(name); len(h) != len(side.serve) || len(h) == 1 && h[0] != w.Nodes[side.serve[0]] {
							w.Fatalf("%d answer for %s", len(h), name)
						}
					}
					w.Run(100 * time.Millisecond)
				}
				w.pair.heal()
				took := w.Settled(promisePeace)
				before := w.placed()
				w.Run(5 * time.Second)
				w.stays(before, "after the heal")
				c.Check()
				t.Logf("settled %v after the heal", took)
			})
		})
	}
}

// More than half of a tie-break of three must answer.
func TestTwoOfThreeBreakATie(t *testing.T) {
	three := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}
	head := strings.Replace(tiebreak, `["192.0.2.1"]`, `["192.0.2.1", "192.0.2.2", "192.0.2.3"]`, 1)
	inPair(t, 433, head, func(w *World, c *Clients) {
		w.Run(3 * time.Second)
		dead := w.Holder("public")
		left := w.other(dead)
		silence := func(k int) {
			w.pair.change("one more is silent", func() { w.pair.silent[asked{left, three[k]}] = true })
		}
		silence(0)
		dead.powerOff()
		serves(w, left, promiseTaken)
		silence(1)
		w.Until("it lets go with one of three", time.Second, func() bool { return w.Holder("public") == nil })
		w.pair.heal()
		serves(w, left, promisePeace)
	}, three...)
}

// Without addresses of its own a pair asks the default gateway.
func TestAPairAsksItsGateway(t *testing.T) {
	inPair(t, 434, gateway, func(w *World, c *Clients) {
		w.Run(3 * time.Second)
		dead := w.Holder("public")
		dead.powerOff()
		serves(w, w.other(dead), promiseTaken)
	}, netip.MustParseAddr("198.18.0.254"))
}

// Both lose their power. Whichever is back first asks the network in full and serves, without the other one and without a vote; when the
// other one is back nothing moves, and what was acknowledged is there.
func TestAPairThatLostItsPowerNeedsOneHost(t *testing.T) {
	for _, mode := range pairModes {
		for i, name := range []string{"the one that votes first", "the other one first"} {
			t.Run(mode.name+" "+name, func(t *testing.T) {
				inPair(t, 440, mode.head, func(w *World, c *Clients) {
					c.Change(w.Nodes[0])
					c.Wait()
					w.Settled(5 * time.Second)
					for _, n := range w.Nodes {
						n.powerOff()
					}
					w.Run(10 * time.Second)
					first := w.Nodes[i]
					first.revive()
					took := serves(w, first, 8*time.Second)
					w.Run(2 * time.Second)
					before := w.placed()
					w.other(first).revive()
					for range 100 {
						w.Run(100 * time.Millisecond)
						w.stays(before, "the second host is back")
					}
					w.Settled(promisePeace)
					c.Check()
					c.Reload(w.Nodes[1])
					t.Logf("%s serves %v after its boot", first.Name, took)
				})
			})
		}
	}
}

// Both lose their power and are back at once.
func TestAPairBootsTogether(t *testing.T) {
	for _, mode := range pairModes {
		inPair(t, 441, mode.head, func(w *World, c *Clients) {
			for _, n := range w.Nodes {
				n.powerOff()
			}
			w.Run(10 * time.Second)
			for _, n := range w.Nodes {
				n.revive()
			}
			t.Logf("%s: settled %v after the boot", mode.name, w.Settled(promisePeace))
			c.Check()
		})
	}
}

// What is taken is taken at a generation that is on the disk. A survivor whose disk is full, or stalls, takes nothing, says why, and
// takes it as soon as the disk is well.
func TestASurvivorWithoutADiskTakesNothing(t *testing.T) {
	for name, d := range map[string]struct{ harm, mend func(n *Node) }{
		"full":   {func(n *Node) { n.disk.fail() }, func(n *Node) { n.disk.mend() }},
		"stalls": {func(n *Node) { n.disk.slow(3 * time.Second) }, func(n *Node) { n.disk.slow(0) }},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(442); !survivesWithoutADisk(t, seed, name == "full", d.harm, d.mend); seed++ {
				if seed == 462 {
					t.Fatal("no pair without a generation on the disk")
				}
			}
		})
	}
}

// survivesWithoutADisk is false, and nothing is shown, if a generation stood on the survivor's disk before: it writes one when it sees the
// other one's guard start after its own, and may take an address at it whatever its disk does later.
func survivesWithoutADisk(t *testing.T, seed uint64, says bool, harm, mend func(n *Node)) (shown bool) {
	inPair(t, seed, tiebreak, func(w *World, c *Clients) {
		w.Run(3 * time.Second)
		dead := w.Nodes[0]
		left := w.other(dead)
		lost := "public"
		if w.Holder(lost) != dead {
			lost = "inside"
		}
		if shown = w.pair.generation(left) == 0; !shown {
			return
		}
		harm(left)
		dead.powerOff()
		w.Run(2 * time.Second)
		if h, now := w.holders(lost), w.pair.generation(left); len(h) > 0 || now > 0 {
			w.Fatalf("%v hold what was taken; generation %d is on the disk", len(h), now)
		}
		if p := left.report().Guard.Pair; says && (p == nil || p.Problem == "") {
			w.Fatalf("its guard does not say why: %+v", p)
		}
		mend(left)
		serves(w, left, 2*time.Second)
		dead.revive()
		w.Settled(promisePeace)
		serves(w, left, 0)
	})
	return shown
}

// The disk of the one that votes, which holds everything, fails. It acknowledges nothing more and lets go; the other one serves.
func TestAPairWhoseVoterLosesItsDisk(t *testing.T) {
	for _, mode := range pairModes {
		inPair(t, 443, mode.head, func(w *World, c *Clients) {
			c.Change(w.Nodes[0])
			c.Wait()
			w.Run(3 * time.Second)
			bad, left := w.Nodes[0], w.Nodes[1]
			bad.disk.fail()
			_ = c.Weigh(bad, "s1") // who knows
			took := serves(w, left, 5*time.Second)
			if err := c.Weigh(bad, "s2"); err == nil {
				w.Fatalf("it acknowledged a change after its disk failed")
			}
			bad.killAgent()
			bad.revive()
			w.Settled(promisePeace)
			serves(w, left, 0)
			c.Check()
			t.Logf("%s: served %v after the write that failed", mode.name, took)
		})
	}
}

// One of the two votes. While it is away the other one serves, can be read, and acknowledges nothing; without the other one the voter can be
// changed. Each catches up when it is back.
func TestAPairIsChangedWhereItsVoterIs(t *testing.T) {
	for _, mode := range pairModes {
		inPair(t, 444, mode.head, func(w *World, c *Clients) {
			voter, other := w.Nodes[0], w.Nodes[1]
			other.powerOff()
			w.Run(time.Second)
			if err := c.Apply(voter, "# without the other one\n"+c.conf); err != nil {
				w.Fatalf("%s: the voter cannot be changed alone: %v", mode.name, err)
			}
			other.revive()
			w.Settled(promisePeace)
			c.Check()
			w.Run(3 * time.Second) // a guard that has just started is silent
			voter.powerOff()
			serves(w, other, promiseTaken)
			acked := c.acked
			var e *api.Error
			if err := c.Apply(other, "# without the voter\n"+c.conf); err == nil || !errors.As(err, &e) {
				w.Fatalf("%s: a change without the voter: %v", mode.name, err)
			}
			if r := other.report(); c.acked != acked || r.Revision.Running == 0 {
				w.Fatalf("%s: %d promises without the voter; it runs revision %d", mode.name, c.acked-acked, r.Revision.Running)
			}
			voter.revive()
			w.Settled(promisePeace)
			serves(w, other, 0)
			c.Check()
			c.Reload(other)
		})
	}
}

// The one that votes is lost for good. The other one, which has taken everything, is made the cluster: it holds without a break longer than its
// restart, and takes writes. The lost one comes back with its disk, and lets go of everything.
func TestTheOtherOneOfAPairIsMadeTheCluster(t *testing.T) {
	for _, mode := range pairModes {
		inPair(t, 445, mode.head, func(w *World, c *Clients) {
			lost, left := w.Nodes[0], w.Nodes[1]
			c.Change(lost)
			c.Wait()
			w.Settled(5 * time.Second)
			lost.powerOff()
			serves(w, left, promiseTaken)
			if w.pair.generation(left) == 0 {
				w.Fatalf("%s: no generation on the disk", mode.name)
			}
			left.recover()
			w.mu.Lock()
			w.pair.single = true
			w.mu.Unlock()
			alone(w, left)
			c.Check()
			if err := c.Apply(left, "# after the recovery\n"+c.conf); err != nil {
				w.Fatalf("%s: the survivor takes no writes: %v", mode.name, err)
			}
			lost.revive()
			leftBehind(w, lost)
			w.Run(10 * time.Second)
			serves(w, left, 0)
			lost.powerOff()
			c.Check()
		})
	}
}

// A third node joins a pair, a witness or a balancer. From then on a majority decides, whatever the configuration says: a host that is cut off lets
// go although it reaches the tie-break, or would need none.
func TestAThirdNodeEndsAPair(t *testing.T) {
	for _, mode := range pairModes {
		for role, name := range map[config.Role]string{config.Witness: "witness", config.Balancer: "balancer"} {
			t.Run(mode.name+" "+name, func(t *testing.T) {
				inPair(t, 446, mode.head, func(w *World, c *Clients) {
					before := w.placed()
					w.Join("lb3", role)
					w.Until("three vote", 10*time.Second, func() bool { return len(voters(w.Nodes[0])) == 3 })
					w.Run(2 * time.Second)
					w.stays(before, "a third one joined")
					w.votes()
					w.mu.Lock()
					w.pair.over = true
					w.mu.Unlock()
					old := w.Holder("public")
					w.Partition(old)
					w.Until("somebody else answers", time.Second, func() bool { h := w.Holder("public"); return h != nil && h != old })
					w.Run(5 * time.Second)
					w.Heal()
					w.Settled(10 * time.Second)
					c.Check()
				})
			})
		}
	}
}
