package state

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state/sticky"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 7200))

func foundCmd() Found {
	return Found{
		ClusterID: "c-1", CA: CA{[]byte("the certificate"), []byte("the key")},
		Gossip: fixedKey('a', 32), Heartbeat: fixedKey('a', 32), Node: testNode("lb1", "c1"), At: testTime,
	}
}

func testNode(name, cert string) Node {
	return Node{Name: name, Role: Balancer, Fingerprint: cert, Advertise: netip.MustParseAddrPort("198.18.0.1:7940")}
}

func table(name string) sticky.Spec {
	return sticky.Spec{ID: sticky.ID(name), Name: name, TTL: time.Minute, Size: 300}
}

// log applies commands and keeps count.
type log struct {
	t testing.TB
	*Machine
	index uint64
}

func newLog(t testing.TB) *log { return &log{t: t, Machine: New()} }

func (l *log) do(c Command) Result {
	l.t.Helper()
	return l.bytes(Encode(c))
}

func (l *log) bytes(b []byte) Result {
	l.t.Helper()
	l.index++
	switch said := l.Apply(l.index, b).(type) {
	case []byte:
		r, err := DecodeResult(said)
		if err != nil {
			l.t.Fatal(err)
		}
		return r
	case error:
		return Result{Code: UnknownCommand, Message: said.Error()}
	}
	l.t.Fatal("neither a result nor an error")
	return Result{}
}

func (l *log) must(cmds ...Command) {
	l.t.Helper()
	for _, c := range cmds {
		if err := l.do(c).Err(); err != nil {
			l.t.Fatalf("%T: %v", c, err)
		}
	}
}

func (l *log) snapshot() []byte {
	l.t.Helper()
	s, err := l.Snapshot()
	if err != nil {
		l.t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if err := s.Persist(&b); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

// random makes a command that may or may not make sense.
func random(r *rand.Rand, l *log) Command {
	v := l.Views().Get()
	node := func() string { return fmt.Sprintf("lb%d", r.IntN(6)) }
	cert := func() string { return fmt.Sprintf("c%d", r.IntN(30)) }
	vip := func() string { return fmt.Sprintf("vip%d", r.IntN(4)) }
	server := func() ServerKey { return ServerKey{fmt.Sprintf("b%d", r.IntN(3)), fmt.Sprintf("s/%d", r.IntN(3))} }
	epoch := func(vip string) Epoch {
		if r.IntN(5) == 0 {
			return Epoch{1, r.Uint64N(100)}
		}
		return v.Placements[vip].Epoch
	}
	switch r.IntN(35) {
	case 34:
		return Raise{To: min(v.Level()+1, Level), Members: []string{"lb0", "lb1", "lb2", "lb3", "lb4", "lb5"}}
	case 30, 31:
		c := PutCertificate{Name: vip(), By: "ann", At: testTime}
		for _, alg := range []string{"ecdsa", "rsa"} {
			if r.IntN(2) == 0 {
				c.Pairs = append(c.Pairs, CertificatePair{alg, []byte(cert()), []byte("key")})
			}
		}
		return c
	case 32:
		return RemoveCertificate{Name: vip(), Algorithm: []string{"", "", "rsa"}[r.IntN(3)]}
	case 33:
		c := PutTicketKey{Key: []byte(cert()), Keep: r.IntN(4)}
		if len(v.Tickets) > 0 {
			c.Expect = v.Tickets[0].Number
		}
		return c
	case 0, 1:
		c := SetConfig{Text: fmt.Appendf(nil, "# %d\n", r.IntN(100)), Author: "ann", Message: "m", At: testTime}
		c.BasedOn = v.Revision.Number - r.Uint64N(2)
		for i := range 4 {
			if r.IntN(3) > 0 {
				c.Scope.VIPs = append([]string{fmt.Sprintf("vip%d", i)}, c.Scope.VIPs...)
			}
		}
		for i := range 4 {
			if r.IntN(8) == 0 {
				c.Scope.Certificates = append(c.Scope.Certificates, fmt.Sprintf("vip%d", i))
			}
		}
		for range r.IntN(8) {
			c.Scope.Servers = append(c.Scope.Servers, server())
		}
		for i := range r.IntN(3) {
			c.Scope.Tables = append(c.Scope.Tables, table(fmt.Sprintf("b%d", i)))
		}
		return c
	case 2, 3:
		name := vip()
		return Place{VIP: name, Node: node(), Expect: epoch(name)}
	case 4:
		name := vip()
		return Unplace{VIP: name, Expect: epoch(name)}
	case 5, 6:
		k := server()
		c := SetServer{Backend: k.Backend, Server: k.Server, By: "ann", At: testTime}
		c.State = []AdminState{"", Enabled, Drain, Disabled}[r.IntN(4)]
		if w := r.IntN(300) - 2; w%2 == 0 {
			c.Weight = &w
		}
		return c
	case 7, 8:
		n := testNode(node(), cert())
		if r.IntN(4) == 0 {
			n.Role = Witness
		}
		c := PutNode{Node: n, Level: min(r.IntN(8), Level)}
		if old, ok := v.Node(n.Name); ok && r.IntN(2) == 0 {
			c.Replaces = old.Fingerprint
		}
		return c
	case 9:
		return RemoveNode{Name: node(), Gossip: fixedKey(byte(r.IntN(200)), 32), Heartbeat: fixedKey(byte(r.IntN(200)), 32)}
	case 10:
		return PutToken{ID: cert(), SecretHash: []byte("hash"), Role: Balancer, Uses: r.IntN(3),
			TTL: time.Duration(r.IntN(30)) * time.Second}
	case 11:
		id := cert()
		if len(v.Tokens) > 0 {
			id = v.Tokens[r.IntN(len(v.Tokens))].ID
		}
		return UseToken{ID: id, SecretHash: []byte("hash"), Role: Balancer, By: node()}
	case 12:
		return RotateKeys{Gossip: fixedKey(byte(r.IntN(200)), 16), Heartbeat: fixedKey(byte(r.IntN(200)), 32), Keep: r.IntN(3)}
	case 13:
		c := Recover{Gossip: fixedKey(byte(r.IntN(200)), 32), Heartbeat: fixedKey(byte(r.IntN(200)), 32)}
		for _, n := range v.Nodes {
			if r.IntN(5) > 0 {
				c.Keep = append(c.Keep, n.Name)
			}
		}
		if r.IntN(6) > 0 { // it ends all placements, and there would be hardly any moves
			return Tick{ElapsedMs: 500}
		}
		return c
	case 17, 19, 20, 21, 22:
		name := vip()
		return Move{VIP: name, Node: node(), Expect: epoch(name), Drain: time.Duration(r.IntN(9)) * time.Second, Asked: r.IntN(2) == 0}
	case 18:
		return SetNode{Name: node(), Drained: r.IntN(2) == 0, Drain: time.Duration(r.IntN(9)) * time.Second, By: "ann", At: testTime}
	case 14, 15, 16:
		return Tick{ElapsedMs: r.Uint64N(5000)}
	}
	for range 40 {
		table, key := sticky.ID(fmt.Sprintf("b%d", r.IntN(3))), sticky.Key{byte(r.IntN(200)), byte(r.IntN(4))}
		l.Tables().Learn(table, key, r.Uint64N(5), time.Minute)
	}
	batch, _ := l.Tables().Drain(50)
	return StickyLearn{Batch: batch}
}

// Two replicas apply the same log; one of them is now and then restored from its own snapshot, the other never. Whatever is in
// the log, every result and every snapshot is the same to the byte.
func TestReplicasAgreeToTheByte(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			a, b := newLog(t), newLog(t)
			carried := map[string]int{}
			for step := range 2500 {
				var c Command = foundCmd()
				if step > 3 {
					c = random(r, a)
				}
				cmd := Encode(c)
				ra, rb := a.bytes(cmd), b.bytes(cmd)
				if ra != rb {
					t.Fatalf("step %d: %T: one says %+v, the other %+v", step, c, ra, rb)
				}
				if ra.Code == OK {
					carried[fmt.Sprintf("%T", c)]++
				}
				if r.IntN(100) == 0 {
					fresh := &log{t: t, Machine: New(), index: b.index}
					if err := fresh.Restore(bytes.NewReader(b.snapshot())); err != nil {
						t.Fatal(err)
					}
					b = fresh
				}
				if step%50 == 0 && !bytes.Equal(a.snapshot(), b.snapshot()) {
					t.Fatalf("step %d: the snapshots differ: %s", step, cmp.Diff(a.Views().Get(), b.Views().Get(),
						cmp.Transformer("json", func(v *View) string { j, _ := v.MarshalJSON(); return string(j) })))
				}
			}
			if len(carried) != 19 {
				t.Errorf("only these kinds were carried out: %v", carried)
			}
		})
	}
}

// A View that somebody holds never changes, whatever is applied afterwards.
func TestViewsAreImmutable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	l := newLog(t)
	l.must(foundCmd())
	type held struct {
		v   *View
		was string
	}
	text := func(v *View) string { return fmt.Sprintf("%+v", *v) }
	var all []held
	for range 1000 {
		l.do(random(r, l))
		if v := l.Views().Get(); len(all) == 0 || all[len(all)-1].v != v {
			all = append(all, held{v, text(v)})
		}
	}
	for _, h := range all {
		if got := text(h.v); got != h.was {
			t.Fatalf("a view changed from\n%s\nto\n%s", h.was, got)
		}
	}
}

func TestStickyBatchesPublishNoView(t *testing.T) {
	l := newLog(t)
	l.must(foundCmd(), SetConfig{Text: []byte("x"), Scope: Scope{Tables: []sticky.Spec{table("shop")}}})
	before := l.Views().Get()
	l.Tables().Learn(sticky.ID("shop"), sticky.Key{1}, 7, time.Minute)
	batch, _ := l.Tables().Drain(10)
	l.must(StickyLearn{Batch: batch}, Tick{ElapsedMs: 10})
	if l.Views().Get() != before {
		t.Error("a view was published")
	}
	if s, ok := l.Tables().Lookup(sticky.ID("shop"), sticky.Key{1}); !ok || s != 7 || l.Tables().Stats()[0].Entries != 1 {
		t.Errorf("Lookup = %d, %v", s, ok)
	}
	if l.LogTime() != 10 {
		t.Errorf("log time is %d, want 10", l.LogTime())
	}
}

// A newer version applied a text that this one cannot read. It keeps the old Config for what it does itself, and agrees on the
// state.
func TestATextThatThisVersionCannotReadKeepsTheOldConfig(t *testing.T) {
	parse := func(text []byte) (*config.Config, error) {
		if bytes.HasPrefix(text, []byte("new")) {
			return nil, errors.New("what is that")
		}
		return &config.Config{Text: text}, nil
	}
	l := &log{t: t, Machine: newMachine(parse)}
	l.must(foundCmd(), SetConfig{Text: []byte("old"), Scope: Scope{VIPs: []string{"a"}}})
	old := l.Views().Get().Config
	l.must(SetConfig{Text: []byte("new"), Scope: Scope{VIPs: []string{"a", "b"}}, BasedOn: 1})
	v := l.Views().Get()
	if v.Config != old || v.ConfigError == nil || v.Revision.Number != 2 || string(v.Revision.Text) != "new" {
		t.Errorf("config %p (was %p), error %v, revision %d", v.Config, old, v.ConfigError, v.Revision.Number)
	}
	l.must(Place{VIP: "b", Node: "lb1"})
	if got, _ := Placements(l.Views().Get(), map[string]NodeHealth{"lb1": {Alive: true, Fit: true}}, "lb1"); len(got) != 1 || got[0].VIP != "a" {
		t.Errorf("Placements = %v", got)
	}
	if err := l.Restore(bytes.NewReader(l.snapshot())); err != nil {
		t.Fatal(err)
	}
	if v := l.Views().Get(); v.Config != old || v.ConfigError == nil {
		t.Errorf("after a restore: config %p (was %p), error %v", v.Config, old, v.ConfigError)
	}
	l.must(SetConfig{Text: []byte("old again"), BasedOn: 2})
	if v := l.Views().Get(); v.Config == old || v.ConfigError != nil {
		t.Errorf("after a text that can be read: config %p (was %p), error %v", v.Config, old, v.ConfigError)
	}
}

func TestAConfigurationOfFourMegabytesIsTooLarge(t *testing.T) {
	l := newLog(t)
	l.must(foundCmd())
	for _, c := range []SetConfig{
		{Text: make([]byte, MaxText+1)},
		{Text: []byte("x"), Scope: Scope{Tables: []sticky.Spec{{ID: 1, Name: "x", TTL: time.Minute}}}},
		{Text: []byte("x"), Scope: Scope{Tables: []sticky.Spec{table("x"), table("x")}}},
	} {
		if err := l.do(c).Err(); !errors.Is(err, ErrInvalid) || l.Views().Get().Revision.Number != 0 || len(l.Tables().Specs()) != 0 {
			t.Errorf("%v; revision %d", err, l.Views().Get().Revision.Number)
		}
	}
}

func TestResultsSurviveTheTripToAnotherNode(t *testing.T) {
	for code := OK; code <= Invalid; code++ {
		r := Result{Code: code, Message: "why not", Index: 1 << 40, Revision: 7, Epoch: Epoch{2, 300}}
		got, err := DecodeResult(EncodeResult(r))
		if err != nil || got != r {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
		if err := got.Err(); code == OK {
			if err != nil {
				t.Errorf("OK is the error %v", err)
			}
		} else if sentinel := sentinels[code]; sentinel == nil || !errors.Is(err, sentinel) || err.Error() != "why not" {
			t.Errorf("code %d: %v is not %v", code, err, sentinel)
		}
	}
	for i := range 5 {
		if _, err := DecodeResult(make([]byte, i)); err == nil {
			t.Errorf("%d zero bytes were taken for a result", i)
		}
	}
	if err := (Result{Code: 200, Message: "from the future"}).Err(); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("a code that this version does not know: %v", err)
	}
}

func populated(t testing.TB) *log {
	l := newLog(t)
	l.must(foundCmd(), SetConfig{Text: []byte("vip \"a\" { address = \"198.18.1.1/24\" }\n"),
		Scope: Scope{VIPs: []string{"a"}, Servers: []ServerKey{{"b/1", "s"}}, Tables: []sticky.Spec{table("b/1")}}},
		Place{VIP: "a", Node: "lb1"}, SetServer{Backend: "b/1", Server: "s", State: Drain},
		PutToken{ID: "t", SecretHash: []byte("hash"), Role: Witness, TTL: time.Hour, Uses: 1}, Tick{ElapsedMs: 1234})
	for i := range byte(3) {
		l.Tables().Learn(sticky.ID("b/1"), sticky.Key{i}, 7, time.Minute)
		batch, _ := l.Tables().Drain(10) // one by one: the order within a batch is the proposer's chance
		l.must(StickyLearn{Batch: batch})
	}
	return l
}

func TestAViewAsJSONShowsNoSecret(t *testing.T) {
	v := populated(t).Views().Get()
	for _, form := range []any{v, *v, map[string]any{"view": v}} {
		j, err := json.Marshal(form)
		if err != nil {
			t.Fatal(err)
		}
		for name, secret := range map[string][]byte{
			"the CA's key": v.CA.KeyPEM, "a key": v.Keys.Gossip[0], "a token's hash": v.Tokens[0].SecretHash,
		} {
			if len(secret) == 0 || bytes.Contains(j, []byte(base64.StdEncoding.EncodeToString(secret))) {
				t.Errorf("%T shows %s: %s", form, name, j)
			}
		}
		if !bytes.Contains(j, []byte(base64.StdEncoding.EncodeToString(v.CA.CertPEM))) || !bytes.Contains(j, []byte(`"drain"`)) {
			t.Errorf("%T does not show what is no secret: %s", form, j)
		}
	}
}

// Whatever bit is wrong and wherever the file ends: it is refused, and the machine stays as it was.
func TestDamagedSnapshotsAreRefusedAndChangeNothing(t *testing.T) {
	l := populated(t)
	good := l.snapshot()
	view := l.Views().Get()
	refused := func(what string, b []byte) {
		t.Helper()
		if err := l.Restore(bytes.NewReader(b)); err == nil {
			t.Fatalf("%s: accepted", what)
		} else if !errors.Is(err, ErrSnapshot) && !errors.Is(err, ErrTooNew) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range good {
		refused(fmt.Sprintf("the first %d of %d bytes", i, len(good)), good[:i])
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("byte %d changed", i), b)
	}
	refused("longer", append(bytes.Clone(good), 0))
	if l.Views().Get() != view || !bytes.Equal(l.snapshot(), good) {
		t.Error("the machine changed")
	}
	if err := newLog(t).Restore(bytes.NewReader(good)); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(b), nil
}

func TestPersistReportsAFullDisk(t *testing.T) {
	l := populated(t)
	for n := range len(l.snapshot()) {
		s, _ := l.Snapshot()
		if err := s.Persist(&failingWriter{n}); err == nil {
			t.Fatalf("no error with room for %d bytes", n)
		}
		s.Release()
	}
}

// every returns one command of each kind, with all of its fields set.
func every() []Command {
	weight := 3
	founded := foundCmd()
	founded.Level, founded.At = Level, testTime.UTC()
	return []Command{
		founded,
		SetConfig{Text: []byte("x"), Scope: Scope{
			VIPs: []string{"a"}, Servers: []ServerKey{{"b/1", "s/1"}}, Tables: []sticky.Spec{table("b")},
			Lists: []string{"office"}, Certificates: []string{"www"},
		}, Message: "m", Author: "ann", At: testTime.UTC(), BasedOn: 0},
		Place{VIP: "a", Node: "lb1", Expect: Epoch{1, 2}},
		Unplace{VIP: "a", Expect: Epoch{1, 2}},
		SetServer{Backend: "b/1", Server: "s/1", State: Drain, Weight: &weight, By: "ann", At: testTime.UTC()},
		PutNode{Node: testNode("lb2", "c2"), Replaces: "c3", Level: Level},
		RemoveNode{Name: "lb2", Gossip: fixedKey('b', 16), Heartbeat: fixedKey('b', 32)},
		PutToken{ID: "t", SecretHash: []byte("hash"), Role: Witness, TTL: time.Hour, Uses: 2},
		UseToken{ID: "t", SecretHash: []byte("hash"), Role: Witness, By: "k"},
		RotateKeys{Gossip: fixedKey('c', 16), Heartbeat: fixedKey('c', 32), Keep: 2},
		StickyLearn{Batch: []byte{1, 2, 3}},
		Tick{ElapsedMs: 1000},
		Recover{Keep: []string{"lb1"}, Above: 3, Gossip: fixedKey('d', 16), Heartbeat: fixedKey('d', 32)},
		Move{VIP: "a", Node: "lb2", Expect: Epoch{1, 2}, Drain: time.Minute, Asked: true},
		SetNode{Name: "lb1", Drained: true, Drain: time.Minute, By: "ann", At: testTime.UTC()},
		PutCertificate{Name: "www", Pairs: []CertificatePair{{"ecdsa", []byte("chain"), []byte("sealed")}}, By: "ann", At: testTime.UTC()},
		RemoveCertificate{Name: "www", Algorithm: "rsa"},
		PutTicketKey{Key: []byte("sealed"), Expect: 7, Keep: 3},
		SetList{
			List: "office", Add: prefixes("198.18.1.0/24"), Remove: prefixes("198.18.1.7/32"), Clear: prefixes("2001:db8::/64"), ClearAll: true,
			By: "ann", At: testTime.UTC(),
		},
		Adopt{VIP: "a", Node: "lb1", Epoch: Epoch{3, 9}, Expect: Epoch{1, 2}},
		Raise{To: Level, Version: "0.2.0", Members: []string{"lb1", "lb2"}},
	}
}

func prefixes(text ...string) (ps []netip.Prefix) {
	for _, t := range text {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

func TestCommandsAreReadBackAsTheyWereWritten(t *testing.T) {
	for _, c := range every() {
		b := Encode(c)
		got, err := Decode(b)
		if err != nil {
			t.Errorf("%T: %v", c, err)
		} else if d := cmp.Diff(c, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("%T came back otherwise:\n%s", c, d)
		}
	}
}

// The commands that change nothing but the state of an existing cluster, as they stood in the first released log.
func TestTheLogOfTheFirstVersionIsRead(t *testing.T) {
	for _, text := range []string{
		`3{"VIP":"a","Node":"lb1","Expect":{"Generation":1,"Index":2}}`,
		`5{"Backend":"b","Server":"s","State":"drain","Weight":null,"By":"ann","At":"2026-01-02T03:04:05Z"}`,
		`7{"Name":"lb2","Gossip":"YQ==","Heartbeat":"YQ=="}`,
		`12{"ElapsedMs":1000}`,
	} {
		kind, body, _ := strings.Cut(text, "{")
		var k byte
		_, _ = fmt.Sscan(kind, &k)
		b := append([]byte{k}, "{"+body...)
		c, err := Decode(b)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := Encode(c); !bytes.Equal(got, b) {
			t.Errorf("%s is written as %s now", text, got)
		}
	}
}

func FuzzApply(f *testing.F) {
	for _, c := range every() {
		f.Add(Encode(c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := populated(t), populated(t)
		rx, ry := x.bytes(b), y.bytes(b)
		if rx != ry || !bytes.Equal(x.snapshot(), y.snapshot()) {
			t.Error("two replicas made different things of the same command")
		}
		if rx.Code != OK && !bytes.Equal(x.snapshot(), populated(t).snapshot()) {
			t.Error("a refused command changed the state")
		}
		if err := New().Restore(bytes.NewReader(x.snapshot())); err != nil {
			t.Errorf("its snapshot cannot be read: %v", err)
		}
	})
}

// FuzzRestore gives what it makes up a correct header and checksums, so that it gets past them.
func FuzzRestore(f *testing.F) {
	for _, l := range []*log{newLog(f), populated(f)} {
		b := l.snapshot()
		f.Add(b[len(snapshotHead(l.Views().Get().Level()))+8 : len(b)-8]) // one frame, without its head and the last one's
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		b := snapshotHead(2)
		file := bytes.NewBuffer(bytes.Clone(b))
		w := &frameWriter{w: file, sum: crc32.Update(0, castagnoli, b)}
		_, _ = w.Write(payload)
		_ = w.frame(nil)
		l := newLog(t)
		if err := l.Restore(file); err != nil {
			if l.Views().Get().Index != 0 || len(l.Tables().Specs()) != 0 {
				t.Error("a refused snapshot changed the state")
			}
			return
		}
		again := newLog(t)
		if err := again.Restore(bytes.NewReader(l.snapshot())); err != nil {
			t.Errorf("what was read once cannot be read again: %v", err)
		} else if !bytes.Equal(again.snapshot(), l.snapshot()) {
			t.Error("a snapshot of a snapshot differs")
		}
		for _, c := range every() {
			l.do(c)
		}
	})
}
