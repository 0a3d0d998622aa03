package vip

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skeinlb/skein/internal/golden"
)

// goldenMessages are the heartbeats of testdata/datagrams.
func goldenMessages() map[string]*message {
	alone := &message{format: 2, reads: Formats{2, 2}, from: idOf("n1"), to: idOf("n2"), boot: 1, seq: 1, interval: 20 * ms, promise: 60 * ms, profile: 1}
	mute := sampleMessage()
	mute.reads = Formats{}
	both := sampleMessage()
	both.reads = Formats{Oldest: 2, Newest: 3}
	return map[string]*message{"format2_reads_3_too": both, "format2_alone": alone, "format2_full": sampleMessage(), "format2_reads_not_said": mute}
}

// What a guard has once sent is read by the next version, and written to it: the datagrams are kept. -rewrite adds one, and changes none.
func TestKeptDatagrams(t *testing.T) {
	c := newCodec("c1", [][]byte{keyA})
	for name, m := range goldenMessages() {
		path := filepath.Join("testdata", "datagrams", name+".hex")
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) && golden.Rewriting() {
			if err := os.WriteFile(path, []byte(lines(c.pack(nil, m))), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		kept, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil || len(kept) == 0 {
			t.Fatalf("%s: %d bytes: %v", path, len(kept), err)
		}
		if got := c.pack(nil, m); !bytes.Equal(got, kept) {
			t.Errorf("%s is written differently now, and the version before can't read it:\n%s", name, lines(got))
		}
		var got message
		if why := c.unpack(kept, &got); why != "" {
			t.Errorf("%s: %s", name, why)
		}
		if m.reads == (Formats{}) {
			m.reads = Formats{2, 2} // what nobody says is the format itself
		}
		if got != *m {
			t.Errorf("%s is read as %+v, want %+v", name, got, *m)
		}
	}
	if files, _ := filepath.Glob("testdata/datagrams/*"); len(files) != len(goldenMessages()) {
		t.Errorf("%d files, %d heartbeats", len(files), len(goldenMessages()))
	}
}

func lines(b []byte) string {
	var out strings.Builder
	for ; len(b) > 32; b = b[32:] {
		fmt.Fprintf(&out, "%x\n", b[:32])
	}
	fmt.Fprintf(&out, "%x\n", b)
	return out.String()
}

// A later version has appended a field and uses a flag that is not known here. What is known is read as ever. (An entry has no flag left.)
func TestAReaderSkipsWhatALaterVersionAppends(t *testing.T) {
	c := newCodec("c1", [][]byte{keyA})
	want := sampleMessage()
	b := c.pack(nil, want)
	b = b[:len(b)-wireTag]
	b[2] |= 0x80
	for _, n := range []int{0, 1, wireTail} {
		var got message
		if why := c.unpack(sealed(append(bytes.Clone(b), make([]byte, n)...)), &got); why != "" || got != *want {
			t.Errorf("with %d bytes more: %q, read as it was meant: %v", n, why, got == *want)
		}
	}
	if len(c.pack(nil, fullMessage()))+wireTail != wireMax {
		t.Errorf("the largest heartbeat and the largest tail are %d bytes, the buffer takes %d", len(c.pack(nil, fullMessage()))+wireTail, wireMax)
	}
}

func fullMessage() *message {
	m := sampleMessage()
	m.nlinks, m.nviews, m.nentries = MaxLinks, MaxPeers+1, MaxVIPs
	return m
}

// TestFormats plays testdata/formats/*.txt against three guards n0, n1, n2 with one address. A block is commands, ----, and what came of it.
// A guard that answers for nobody longer than a planned move takes, or too few that hear one another, fail the test at any moment.
//
//	cluster A-B         three guards that read these formats; the address is placed on n0
//	upgrade nI A-B      the address is moved away, then the guard is restarted as one that reads these formats
//	restart nI A-B      the same without the move
//	heard               in which format each hears the others, and whom it does not understand
func TestFormats(t *testing.T) {
	golden.Each(t, "testdata/formats/*.txt", 3, func(t *testing.T, text string) string {
		var s *formatScript
		return golden.Blocks(text, func(command, rest string) string {
			if strings.HasPrefix(command, "cluster") {
				s = newFormatScript(t, 1, readRange(t, strings.Fields(command)[1]))
				command = "heard"
			}
			var out strings.Builder
			for line := range strings.Lines(command + "\n" + rest) {
				s.do(&out, strings.Fields(line))
			}
			return out.String()
		})
	})
}

// formatScript is a cluster whose guards are replaced one by one.
type formatScript struct {
	t  *testing.T
	w  *world
	on int // where the address is
}

func readRange(t *testing.T, text string) Formats {
	var f Formats
	if _, err := fmt.Sscanf(text, "%d-%d", &f.Oldest, &f.Newest); err != nil {
		t.Fatal(err)
	}
	return f
}

func newFormatScript(t *testing.T, seed uint64, reads ...Formats) *formatScript {
	s := &formatScript{t: t, w: newWorld(t, seed, 3)}
	s.w.steady = true
	for i, n := range s.w.nodes {
		n.codec = newCodec("c1", [][]byte{keyA})
		n.codec.reads = reads[i%len(reads)]
		n.boot()
	}
	s.w.run(1500 * ms)
	s.w.place(0, 0, 1)
	s.w.run(200 * ms)
	return s
}

func (s *formatScript) do(out *strings.Builder, f []string) {
	switch f[0] {
	case "upgrade", "restart":
		i := int(f[1][1] - '0')
		n := s.w.nodes[i]
		if f[0] == "upgrade" && s.on == i {
			s.on = (i + 1) % 3
			s.w.place(0, s.on, 1)
			s.pass(200 * ms)
		}
		n.codec.reads = readRange(s.t, f[2])
		n.boot()
		s.pass(2000 * ms)
	case "heard":
		for _, n := range s.w.nodes {
			st := n.m.status(n.now())
			fmt.Fprintf(out, "n%d", n.i)
			for j := range s.w.nodes {
				if p, ok := st.Peers[simName(j)]; ok {
					switch {
					case p.Alive:
						fmt.Fprintf(out, "  n%d: %d", j, p.Format)
					case p.NotUnderstood != "":
						fmt.Fprintf(out, "  n%d: %s", j, p.NotUnderstood)
					default:
						fmt.Fprintf(out, "  n%d: silence", j)
					}
				}
			}
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "held by n%d\n", s.on)
	default:
		s.t.Fatalf("unknown command %q", f)
	}
}

// pass lets time go by, and looks all the time whether the address is answered for and a majority hears one another.
func (s *formatScript) pass(d int64) {
	s.t.Helper()
	quiet, deaf := int64(0), int64(0)
	for end := s.w.now + d; s.w.now < end; {
		s.w.run(ms)
		if quiet += ms; s.w.nodes[s.on].answers(0) {
			quiet = 0
		}
		if deaf += ms; s.heardBoth() > 0 {
			deaf = 0
		}
		if quiet > 5*ms || deaf > 0 {
			s.t.Fatalf("nobody has answered for %d ms; two that hear each other: none for %d ms", quiet/ms, deaf/ms)
		}
	}
}

// heardBoth counts the pairs of guards that hear each other.
func (s *formatScript) heardBoth() (n int) {
	hears := func(a, b *simNode) bool {
		p := a.m.peers[a.m.peerIndex(idOf(simName(b.i)))]
		return p.ever && !p.suspect
	}
	for i, a := range s.w.nodes {
		for _, b := range s.w.nodes[:i] {
			if hears(a, b) && hears(b, a) {
				n++
			}
		}
	}
	return n
}

// Guards are replaced in any order by any versions, while packets are lost. When that is over, two that have a format in common hear each
// other in the newest such, and two that have none say of each other who is too old.
func TestGuardsWithACommonFormatHearEachOther(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		reads := func() Formats {
			oldest := byte(2 + rng.IntN(4))
			return Formats{oldest, oldest + byte(rng.IntN(3))}
		}
		w := newFormatScript(t, seed, reads(), reads(), reads()).w
		for range 6 {
			w.loss = 0.2
			n := w.nodes[rng.IntN(3)]
			n.codec.reads = reads()
			n.boot()
			w.run(rng.Int64N(1500 * ms))
		}
		w.loss = 0
		w.run(2500 * ms)
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				if a == b {
					continue
				}
				x, y := a.m.reads, b.m.reads
				p := a.m.status(a.now()).Peers[simName(b.i)]
				common := x.Oldest <= y.Newest && y.Oldest <= x.Newest
				switch {
				case common && (!p.Alive || p.Format != int(min(x.Newest, y.Newest)) || p.NotUnderstood != ""):
					t.Errorf("seed %d: n%d reads %v, n%d %v; heard %v in %d, %q", seed, a.i, x, b.i, y, p.Alive, p.Format, p.NotUnderstood)
				case !common && (p.Alive || p.NotUnderstood == ""):
					t.Errorf("seed %d: n%d reads %v, n%d %v; heard %v, %q", seed, a.i, x, b.i, y, p.Alive, p.NotUnderstood)
				}
			}
		}
	}
}

// The rule by itself: two versions meet only if both keep to it.
func TestWhoIsNotHeardIsWrittenToInTheOldest(t *testing.T) {
	m := newMachine(1, 1, true)
	m.reads = Formats{3, 4}
	for _, c := range []struct {
		name     string
		p        peer
		greeting bool
		want     byte
	}{
		{"never heard", peer{reads: Formats{3, 4}}, false, 3},
		{"heard, a neighbour before", peer{ever: true, reads: Formats{2, 3}}, false, 3},
		{"heard, the same", peer{ever: true, reads: Formats{3, 4}}, false, 4},
		{"heard, a neighbour behind", peer{ever: true, reads: Formats{4, 5}}, false, 4},
		{"not heard any more", peer{ever: true, suspect: true, reads: Formats{4, 5}}, false, 3},
		{"a new life, of an older version", peer{ever: true, reads: Formats{4, 5}, newReads: Formats{2, 3}}, true, 3},
		{"a new life, of a newer version", peer{suspect: true, reads: Formats{2, 3}, newReads: Formats{4, 5}}, true, 4},
		{"heard once, too old by what it says", peer{ever: true, reads: Formats{1, 1}}, false, 3},
	} {
		if got := m.formatFor(&c.p, c.greeting); got != c.want {
			t.Errorf("%s: format %d, want %d", c.name, got, c.want)
		}
	}
}

// A recorded heartbeat of a former version says nothing of a guard that is heard.
func TestARecordingMakesNobodyTooOld(t *testing.T) {
	w := newFormatScript(t, 1, Formats{4, 5}).w
	old := newCodec("c1", [][]byte{keyA})
	b := old.pack(nil, &message{format: 2, reads: Formats{2, 2}, from: idOf("n1"), to: idOf("n0"), boot: 1, seq: 1, interval: 20 * ms, promise: 60 * ms})
	n := w.nodes[0]
	if name, why := n.m.hearUnread(n.now(), b); why != "" {
		t.Errorf("%s: %s", name, why)
	}
	w.nodes[1].down = true
	w.run(500 * ms)
	name, why := n.m.hearUnread(n.now(), b)
	if want := "its guard reads heartbeats of format 2, the one here formats 4 to 5: that one is too old"; name != "n1" || why != want {
		t.Errorf("%s: %q, want %q", name, why, want)
	}
	if name, why := n.m.hearUnread(n.now(), b); why != "" {
		t.Errorf("said twice: %s: %s", name, why)
	}
	for _, m := range []*message{{format: 2, from: idOf("n9"), to: idOf("n0")}, {format: 2, from: idOf("n1"), to: idOf("n2")}} {
		if name, why := n.m.hearUnread(n.now(), old.pack(nil, m)); why != "" {
			t.Errorf("said of a stranger, or to another: %s: %s", name, why)
		}
	}
}

// read takes a heartbeat off the wire.
func (n *simNode) read(b []byte) {
	if n.down {
		return
	}
	msg := new(message)
	switch n.codec.unpack(b, msg) {
	case "":
		n.deliver(msg)
	case otherFormat:
		n.m.hearUnread(n.now(), b)
		n.act()
	}
}
