package lab

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestOutage reads timelines: one character per request, one every 10 ms; "." is good after 1 ms, "x" refused after 1 ms,
// "t" timed out after 250 ms, "s" good but slow (100 ms). "|" is the event, and takes no time.
func TestOutage(t *testing.T) {
	good := strings.Repeat(".", stableRun)
	for _, c := range []struct {
		name, line string
		failed     int
		length     time.Duration
		over       bool
	}{
		{"nothing happens", "....|" + good, 0, 0, true},
		{"refused for 30 ms", "..|.xxx" + good, 3, 31 * time.Millisecond, true},
		{"a failure before the event is not its own", "x...|" + good, 0, 0, true},
		{"flapping counts as one outage", "..|.xx...........x...." + good, 3, 141 * time.Millisecond, true},
		{"not over", "..|.xx........", 2, 11 * time.Millisecond, false},
		{"under way when it happens: counts from the event", "..t|" + good, 1, 1 * time.Millisecond, true},
		{"time-outs", "..|tttt" + good, 4, 41 * time.Millisecond, true},
		{"the end is when the answer is complete", "..|xs" + good, 1, 110 * time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			at, since := base, time.Time{}
			var list []Outcome
			for _, r := range c.line {
				o := Outcome{At: at, Took: time.Millisecond}
				switch r {
				case '|':
					since = at
					continue
				case 'x':
					o.Err = "refused"
				case 't':
					o.Err, o.Took = "timeout", 250*time.Millisecond
				case 's':
					o.Took = 100 * time.Millisecond
				}
				list = append(list, o)
				at = at.Add(10 * time.Millisecond)
			}
			o := outage(list, since)
			if o.Failed != c.failed || o.Length() != c.length || o.Over() != c.over {
				t.Errorf("%s: failed %d, length %v, over %v; want %d, %v, %v", c.line, o.Failed, o.Length(), o.Over(), c.failed, c.length, c.over)
			}
		})
	}
}

func TestARequestUnderWayHidesWhatCameAfterIt(t *testing.T) {
	var r Record
	base := time.Now()
	a, b := r.begin(base), r.begin(base.Add(time.Millisecond))
	r.finish(b, time.Millisecond, "s1", "")
	if n := len(r.Since(base)); n != 0 {
		t.Errorf("%d outcomes are visible, want none: the first request may still fail", n)
	}
	r.finish(a, 5*time.Millisecond, "", "reset")
	if o := r.Outage(base); o.Requests != 2 || o.Failed != 1 {
		t.Errorf("outage %+v, want one of two failed", o)
	}
	if done, failed := r.Count(); done != 2 || failed != 1 {
		t.Errorf("%d ended and %d failed, want one of two failed", done, failed)
	}
}

func TestSettledWaitsForTheQuietTimeAndAStableRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Record
		start := time.Now()
		go func() {
			for i := range 200 {
				n := r.begin(time.Now())
				err := ""
				if i == 30 || i == 60 {
					err = "refused"
				}
				time.Sleep(10 * time.Millisecond)
				r.finish(n, 10*time.Millisecond, "", err)
			}
		}()
		o, err := r.Settled(t.Context(), start, 500*time.Millisecond)
		if d := time.Since(start); err != nil || o.Failed != 2 || d < 800*time.Millisecond || d > time.Second {
			t.Errorf("settled after %v with %+v, %v; want both failures, and twenty good ones after them", d, o, err)
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
	})
}

func TestARPFrames(t *testing.T) {
	mac := [6]byte{2, 0, 0xc6, 0x12, 0, 1}
	vip, sender := netip.MustParseAddr("198.18.0.100"), (&ARPWatch{}).senderOf(7)
	req := arpRequest(mac[:], sender, vip)
	if len(req) != arpFrame {
		t.Fatalf("a request has %d bytes, want %d", len(req), arpFrame)
	}
	if _, _, _, ok := arpReply(req); ok {
		t.Error("a request was taken for a reply")
	}
	reply := append([]byte(nil), req...)
	reply[21] = 2
	copy(reply[28:32], vip.AsSlice())
	copy(reply[38:42], sender.AsSlice())
	got, who, to, ok := arpReply(reply)
	if !ok || got != mac || who != vip || to != sender {
		t.Errorf("arpReply = %v, %v, %v, %v", got, who, to, ok)
	}
	for n := range reply {
		if _, _, _, ok := arpReply(reply[:n]); ok {
			t.Errorf("a reply of %d bytes was taken", n)
		}
	}
}

// A late answer belongs to the request that it answers: the old holder's last words after a move are no second holder.
func TestLateAnswersAreNoSecondHolder(t *testing.T) {
	a, b := byte(1), byte(2)
	w := &ARPWatch{Addr: netip.MustParseAddr("198.18.0.100")}
	base := time.Now()
	for n := range 200 {
		w.samples = append(w.samples, ARPSample{At: base.Add(time.Duration(n) * 5 * time.Millisecond)})
	}
	answer := func(n int, from byte) {
		f := arpRequest([]byte{2, 0, 0, 0, 0, from}, w.senderOf(n), w.Addr)
		f[21] = 2
		copy(f[28:32], w.Addr.AsSlice())
		copy(f[38:42], w.senderOf(n).AsSlice())
		w.heard(f)
	}
	answer(198, b)
	answer(197, a)
	answer(197, a) // twice by the same
	if n, _ := w.TwoHolders(base); n != 0 {
		t.Errorf("%d samples with two holders, want none", n)
	}
	answer(195, a)
	answer(195, b)
	answer(196, b)
	answer(196, a)
	if n, d := w.TwoHolders(base); n != 2 || d != 5*time.Millisecond {
		t.Errorf("%d samples with two holders over %v, want 2 over 5ms", n, d)
	}
}

// The checksum is proven by a kernel that answers, in TestWatchSeesAnAddressMoveAndTwoHolders.
func TestNeighbourDiscoveryFrames(t *testing.T) {
	mac := [6]byte{2, 0, 0xc6, 0x12, 0, 1}
	w := &ARPWatch{Addr: netip.MustParseAddr("2001:2::100")}
	ask := ndSolicit(mac[:], w.senderOf(7), w.Addr)
	if _, _, _, ok := ndAdvert(ask); ok {
		t.Error("a question was taken for an answer")
	}
	answer := append([]byte(nil), ask...)
	answer[ndMessage], answer[ndMessage+4], answer[ndEnd] = 136, 0x60, 2
	copy(answer[38:54], w.senderOf(7).AsSlice())
	answer[ndEnd+7]++ // the option counts, not the frame's source
	got, who, to, ok := ndAdvert(answer)
	if mac[5]++; !ok || got != mac || who != w.Addr || to != w.senderOf(7) {
		t.Errorf("ndAdvert = %v, %v, %v, %v", got, who, to, ok)
	}
	for n := range ndEnd {
		if _, _, _, ok := ndAdvert(answer[:n]); ok {
			t.Errorf("an answer of %d bytes was taken", n)
		}
	}
	answer[ndMessage+4] = 0x20
	if _, _, _, ok := ndAdvert(answer); ok {
		t.Error("an announcement was taken for an answer")
	}
}

func FuzzNDAdvert(f *testing.F) {
	w := &ARPWatch{Addr: netip.MustParseAddr("2001:2::100")}
	f.Add(ndSolicit([]byte{2, 0, 0xc6, 0x12, 0, 1}, w.senderOf(0), w.Addr))
	f.Add(make([]byte, ndEnd-1))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, who, to, ok := ndAdvert(frame); ok && (len(frame) < ndEnd || !who.Is6() || !to.Is6()) {
			t.Errorf("%x was read as %v, said to %v", frame, who, to)
		}
	})
}

func FuzzARPReply(f *testing.F) {
	f.Add(arpRequest([]byte{2, 0, 0xc6, 0x12, 0, 1}, (&ARPWatch{}).senderOf(0), netip.MustParseAddr("198.18.0.100")))
	f.Add(make([]byte, arpFrame-1))
	f.Fuzz(func(t *testing.T, frame []byte) {
		mac, who, to, ok := arpReply(frame)
		if ok && (len(frame) < arpFrame || !who.Is4() || !to.Is4() || string(frame[22:28]) != string(mac[:])) {
			t.Errorf("%x was read as %x holds %v, said to %v", frame, mac, who, to)
		}
		w := &ARPWatch{Addr: who, samples: make([]ARPSample, 3)}
		w.heard(frame)
	})
}
