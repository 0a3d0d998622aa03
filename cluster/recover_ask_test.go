package cluster

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// reply is what a node says to a question for its log.
type reply func(c *tls.Conn, f frame)

// hangUp ends the connection without a word, as a node does that is about to end.
func hangUp(c *tls.Conn, _ frame) { c.Close() }

func refuse(err error) reply {
	return func(c *tls.Conn, f frame) {
		c.Write(appendFrame(nil, frame{kind: frameRefused, id: f.id, body: encodeRefusal(err)}))
	}
}

func ends(e logEnd) reply {
	return func(c *tls.Conn, f frame) {
		b, err := json.Marshal(e)
		if err != nil {
			panic(err) // plain data
		}
		c.Write(appendFrame(nil, frame{kind: frameOK, id: f.id, body: b}))
	}
}

func after(d time.Duration, then reply) reply {
	return func(c *tls.Conn, f frame) {
		time.Sleep(d) // of virtual time: its disk is slow
		then(c, f)
	}
}

// Of three nodes one is to be recovered, one is lost, and one answers in every way that there is: what it has counts, however often it has
// to be asked while it begins or ends.
func TestASurvivorIsAskedUntilItSaysWhatItHas(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		network, nodes := virtualThree(t, dir)
		a, b := nodes[0], nodes[1]
		a.tick(1)
		ended(nodes) // the third is not there at all: nobody listens at its address

		r := a.recovery()
		defer r.Close()
		same := r.last
		more, recovered := same, same
		more.Index++
		recovered.Generation++

		id, err := loadIdentity(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		var self atomic.Pointer[identity]
		self.Store(id)
		m := newMux(b.log, network.at(b.addr.Addr()), &self, func(string) bool { return false }, time.Now)
		var replies []reply // the last one stays
		asked := 0
		m.handlers = map[string]func(*tls.Conn, peer){ALPNForward: func(c *tls.Conn, _ peer) {
			defer c.Close()
			f, err := readFrame(c, maxFrame)
			if err != nil {
				return // it was only to show that it lives
			}
			if f.kind != frameLog {
				t.Errorf("asked a question of kind %d", f.kind)
			}
			say := replies[min(asked, len(replies)-1)]
			asked++
			say(c, f)
			io.Copy(io.Discard, c) // until the other side has what it wanted
		}}
		l, err := m.network.Listen(b.addr)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() { defer close(served); m.serve(l) }()
		defer func() { l.Close(); m.close(); <-served }()

		for _, c := range []struct {
			what    string
			replies []reply
			want    Peer
			asked   int // 0: as often as there is time for
			took    time.Duration
		}{
			{"it has as much", []reply{ends(same)}, Peer{}, 1, 0},
			{"it has more", []reply{ends(more)}, Peer{Newer: true}, 1, 0},
			{"it has been recovered", []reply{ends(recovered)}, Peer{Ahead: true}, 1, 0},
			{"it begins, and has more", []reply{hangUp, hangUp, ends(more)}, Peer{Newer: true}, 3, 2 * askAgain},
			{"it ends, is restarted, and has more", []reply{refuse(ErrClosed), hangUp, ends(more)}, Peer{Newer: true}, 3, 2 * askAgain},
			{"it begins, and has been recovered", []reply{hangUp, ends(recovered)}, Peer{Ahead: true}, 2, askAgain},
			{"it begins, and has as much", []reply{hangUp, ends(same)}, Peer{}, 2, askAgain},
			{"its disk is slow", []reply{after(2*time.Second, ends(more))}, Peer{Newer: true}, 1, 2 * time.Second},
			{"it never gets so far", []reply{hangUp}, Peer{}, 0, askWait},
			{"it is too old for the question", []reply{refuse(ErrUnknownQuestion)}, Peer{}, 0, askWait},
		} {
			replies, asked = c.replies, 0
			since := time.Now()
			peers := r.Ask(t.Context())
			took := time.Since(since)
			synctest.Wait()
			if len(peers) != 2 || peers[0].Name != "b" || peers[1].Answers {
				t.Fatalf("%s: peers %+v", c.what, peers)
			}
			if p := peers[0]; !p.Answers || p.Newer != c.want.Newer || p.Ahead != c.want.Ahead {
				t.Errorf("%s: %+v, want it to answer, newer %v, ahead %v", c.what, p, c.want.Newer, c.want.Ahead)
			}
			if asked != c.asked && c.asked > 0 || took != c.took {
				t.Errorf("%s: asked %d times in %v, want %d in %v", c.what, asked, took, c.asked, c.took)
			}
		}
	})
}

// A node that ends says nothing of its log rather than that it has none. One whose disk failed says what it has.
func TestANodeThatEndsDoesNotSayThatItHasNothing(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		_, nodes := virtualThree(t, dir)
		a := nodes[0]
		index := a.tick(1)
		a.applied(index)
		before, err := a.logEnd()
		if err != nil || before.Index < index || before.Term == 0 || before.Generation != 1 {
			t.Errorf("its log ends at %+v (%v), want index %d at least", before, err, index)
		}
		if err := a.raft.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		if e, err := a.logEnd(); err != nil || e != before {
			t.Errorf("without raft its log ends at %+v (%v), want %+v", e, err, before)
		}
		ended(nodes)
		if e, err := a.logEnd(); err == nil {
			t.Errorf("it ended, and says that its log ends at %+v", e)
		}
	})
}
